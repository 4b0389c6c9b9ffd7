"""completion, doctor, install-links: how a user gets along."""

import importlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cfsbuild.cli import checks
from cfsbuild.cli.verbs import FRONT_ENDS, VERBS

PROGRAM = Path(sys.executable).with_name("cfsbuild")

needs_program = pytest.mark.skipif(not PROGRAM.exists(), reason=f"{PROGRAM} is not installed")


def needs_shell(name):
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")


def environment():
    return {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}


@needs_program
@needs_shell("bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["cfsbuild", "ex"], ["explain", "export"]),
        (["cfsbuild", "ls", "--tr"], ["--tree"]),
        (["cfsbuild", "--progress", "p"], ["plain"]),
        (["cfsbuild", "completion", "f"], ["fish"]),
        (["cfsbuild", "ls", "gate"], ["gateway-1", "gateway.cfs"]),
        (["cfsbuild", "store", "rm", "gate"], ["gateway-1"]),
        (["cfsbuild", "store", "rm", "gateway-1", "gate"], []),
    ],
)
def test_bash_completes_verbs_options_values_and_images(lab, run, words, expected):
    lab.image("gateway.cfs")
    run("import", "gateway.cfs", "--name", "gateway-1")
    assert completed_by_bash(words) == expected


def completed_by_bash(words):
    script = (
        'eval "$(cfsbuild completion bash)"; shopt -u nocasematch; compopt() { :; };'
        f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1};"
        f'_cfsbuild_completion cfsbuild {shlex.join(words[:-3:-1])}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stderr == ""
    return [word.strip() for word in done.stdout.split() if word != words[-1]]


RECIPE = """
include = ["base.toml"]
[profiles.debug.vars]
[profiles.dev.vars]
[nodes.motd]
kind = "not written yet"
[targets.second]
"""


@needs_program
@needs_shell("bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["why", "m"], ["motd", "mount-here"]),
        (["why", "motd", ""], ["base", "targets.image", "targets.second"]),
        (["why", "targets.image", "other.toml", "o"], []),
        (["why", "other.toml", "o"], ["only"]),
        (["why", "recipe.toml", "targets.s"], ["targets.second"]),
        (["build", "--profile", "d"], ["debug", "dev"]),
        (["build", "-p", "debug", "-p", "d"], ["dev"]),
        (["check", "other.toml", "-p", ""], []),
    ],
)
def test_bash_completes_names_of_the_recipe(lab, words, expected):
    Path("recipe.toml").write_text(RECIPE)
    Path("base.toml").write_text('[nodes.base]\nkind = "unheard of"\n')
    Path("other.toml").write_text("[nodes.only]\n")
    Path("mount-here").touch()
    assert completed_by_bash(["cfsbuild", *words]) == expected


@needs_program
@needs_shell("bash")
def test_bash_completes_from_the_recipe_where_c_points(lab):
    Path("sub").mkdir()
    Path("sub/recipe.toml").write_text("[nodes.motd]\n[nodes.issue]\n")
    Path("sub/mount-here").touch()
    assert completed_by_bash(["cfsbuild", "-C", "sub", "why", "m"]) == ["motd", "mount-here"]
    assert completed_by_bash(["cfsbuild", "-C", "sub", "why", "motd", "i"]) == ["issue"]


@needs_program
@needs_shell("bash")
@pytest.mark.parametrize(
    "text", ["[nodes.motd\n", "include = 5\n[nodes.motd]\n", "nodes = 5\nprofiles = []\n", None]
)
def test_nothing_is_completed_from_what_is_no_recipe(lab, text):
    if text is None:
        os.mkfifo("recipe.toml")
    else:
        Path("recipe.toml").write_text(text)
    assert completed_by_bash(["cfsbuild", "why", "recipe.toml", "m"]) == []
    assert completed_by_bash(["cfsbuild", "build", "-p", "m"]) == []


@needs_program
@needs_shell("fish")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cfsbuild ex", ["explain", "export"]),
        ("cfsbuild ls --tr", ["--tree"]),
        ("cfsbuild ls gate", ["gateway-1"]),
    ],
)
def test_fish_completes_verbs_options_and_images(lab, run, tmp_path, line, expected):
    run("import", lab.image(), "--name", "gateway-1")
    script = f"cfsbuild completion fish | source; complete -C '{line}'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True, env=environment()
    )
    assert [row.split("\t")[0] for row in done.stdout.splitlines()] == expected


@needs_program
@needs_shell("zsh")
@pytest.mark.parametrize(
    ("words", "expected"),
    [(["cfsbuild", "ex"], ["explain", "export"]), (["cfsbuild", "ls", "gate"], ["gateway-1"])],
)
def test_zsh_completes_verbs_and_images(lab, run, words, expected):
    run("import", lab.image(), "--name", "gateway-1")
    # The two builtins that show candidates work in the line editor only: these print what they are given.
    script = (
        "compdef() { :; }; _describe() { print -rl -- ${(P)3}; }; compadd() { print -rl -- ${(P)${@[-1]}}; };"
        'eval "$(cfsbuild completion zsh)";'
        f"words=({' '.join(words)}); CURRENT={len(words)}; _cfsbuild_completion"
    )
    done = subprocess.run(
        ["zsh", "-f", "-c", script], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.stderr == ""
    assert [row.split(":")[0] for row in done.stdout.split("\n") if row] == expected


def test_the_shell_is_taken_from_the_environment(run, monkeypatch):
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert run("completion").out == run("completion", "fish").out
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    outcome = run("completion")
    assert outcome.status == 2
    assert "Which shell?" in outcome.err


def test_doctor_names_every_part_and_what_to_do(lab, run):
    outcome = run("doctor")
    assert outcome.status == 0
    for word in ("Python", "fs-verity digests", "Store", "Kernel", "erofs", "Programs", "mkcomposefs"):
        assert word in outcome.text
    document = run("doctor", "--json").json
    assert document["usable"] is True
    assert all(check["advice"] or check["found"] for check in document["checks"])
    assert {check["state"] for check in document["checks"]} <= {"ok", "limited", "missing"}


def test_doctor_finds_programs_that_only_the_path_of_root_has(lab, run, monkeypatch):
    where = shutil.which("mkfs.ext4")
    if where is None or not where.startswith(("/usr/sbin/", "/sbin/")):
        pytest.skip("mkfs.ext4 is not in /usr/sbin")
    monkeypatch.setenv("PATH", "/nowhere")
    found = {check["name"]: check for check in run("doctor", "--json").json["checks"]}
    assert found["mkfs.ext4"]["state"] == "ok"
    assert found["mkfs.ext4"]["found"].endswith("/mkfs.ext4")


def test_doctor_says_which_digest_code_runs(lab, run, monkeypatch):
    monkeypatch.setenv("CFSBUILD_NATIVE", "0")
    found = {check["name"]: check for check in run("doctor", "--json").json["checks"]}
    assert found["fs-verity digests"]["found"] == "hashlib"
    assert found["fs-verity digests"]["state"] == "limited"
    assert found["directory scan"]["advice"] == "CFSBUILD_NATIVE=0 turns native code off"


def test_doctor_without_a_store_says_how_one_comes_about(lab, run):
    shutil.rmtree(lab.store)
    outcome = run("doctor")
    assert outcome.status == 0
    assert f"cfsbuild store init {lab.store}" in outcome.text
    assert not lab.store.exists()


def test_doctor_complains_of_a_store_that_cannot_be_used(lab, run):
    (lab.store / "meta.json").unlink()
    (lab.store / "meta.json").write_text("{}")
    outcome = run("doctor")
    assert outcome.status == 1
    assert "missing" in outcome.text


def test_kernel_releases_are_understood():
    assert checks.kernel_version("6.12.3-amd64") == (6, 12)
    assert checks.kernel_version("6.1") == (6, 1)
    assert checks.kernel_version("7.0-rc1+") == (7, 0)
    assert checks.kernel_version("6.18.44-fc-v782") == (6, 18)


@needs_program
def test_links_lead_to_the_front_ends(lab, run, tmp_path):
    directory = tmp_path / "bin"
    directory.mkdir()
    subprocess.run([PROGRAM, "install-links", directory], check=True, capture_output=True)
    assert sorted(path.name for path in directory.iterdir()) == sorted(FRONT_ENDS)
    done = subprocess.run([directory / "mount.composefs", "-h"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "usage: mount.composefs" in done.stdout + done.stderr
    again = subprocess.run([PROGRAM, "install-links", directory], check=False, capture_output=True)
    assert again.returncode == 0


@needs_program
def test_links_replace_nothing_unasked(tmp_path):
    (tmp_path / "mkcomposefs").write_text("mine")
    done = subprocess.run([PROGRAM, "install-links", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert "exists already" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mkcomposefs"]
    assert subprocess.run(
        [PROGRAM, "install-links", "-n", "-f", tmp_path], check=True, capture_output=True
    ).stdout
    assert (tmp_path / "mkcomposefs").read_text() == "mine"
    subprocess.run([PROGRAM, "install-links", "-f", tmp_path], check=True, capture_output=True)
    assert (tmp_path / "mkcomposefs").readlink() == PROGRAM


@pytest.mark.parametrize("name", list(VERBS))
def test_every_verb_in_the_table_is_a_command_with_help(name):
    module = f"cfsbuild.cli.{VERBS[name].module}"
    try:
        command = importlib.import_module(module).command
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        pytest.fail(f"{module} does not exist")
    assert isinstance(command, click.Command)
    assert command.name == name
    assert command.help


@pytest.mark.parametrize("name", list(FRONT_ENDS))
def test_every_front_end_in_the_table_has_a_main(name):
    assert callable(importlib.import_module(f"cfsbuild.cli.{FRONT_ENDS[name].module}").main)
