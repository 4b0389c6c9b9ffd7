# Daily work. `just` alone lists the recipes.

python := "python3"
venv := ".venv"
bin := venv / "bin"

_list:
    @just --list

# a virtual environment with everything that daily work needs
setup:
    test -x {{bin}}/python || {{python}} -m venv {{venv}}
    {{bin}}/pip install -q -e '.[dev]'

# build and show the hello image
demo: setup
    {{bin}}/cfsbuild build recipes/hello.toml
    {{bin}}/cfsbuild ls --tree recipes/hello.toml

# the fast tests
test *ARGS: setup
    {{bin}}/pytest -n 2 {{ARGS}}

# style, types and the import contract
lint: setup
    {{bin}}/ruff format --check .
    {{bin}}/ruff check .
    {{bin}}/mypy
    {{bin}}/lint-imports

# tests that need the lab (Debian sid with composefs), the VM, or patience; as root
lab *ARGS: setup
    tests/lab/make-lab
    tests/vm/make-kernel
    {{bin}}/pytest -m 'lab or vm or slow' {{ARGS}}

# ratios against the peers, in one run
bench *ARGS: setup
    {{bin}}/python benchmarks/run.py {{ARGS}}
