"""The README tells the truth: its tour, its picture, and its two commands on a machine with only Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from console_blocks import ROOT, Command, matches, renewed, run_page, steps

from cfsbuild.deploy import kernel_features
from cfsbuild.errors import VerificationError

README = (ROOT / "README.md").read_text()


def assert_written(command: Command, actual: str) -> None:
    assert matches(command.expected, actual), (
        f"$ {command.text}\nthe page says\n{command.expected}\nit is\n{actual}"
    )


def test_the_tour_writes_what_the_readme_shows_and_draws_its_picture(tmp_path):
    session = run_page(README, tmp_path, assert_written)
    drawn = (session.cwd / "plan.svg").read_text()
    assert drawn == (ROOT / "docs/hello-plan.svg").read_text(), (
        "renew docs/hello-plan.svg by the tour's command"
    )


def test_what_a_kernel_without_fs_verity_is_told_is_quoted(monkeypatch):
    monkeypatch.setattr(kernel_features, "_VERITY_SIGNS", ())
    with pytest.raises(VerificationError) as caught:
        kernel_features.check_kernel(["fs-verity"])
    assert f"`error: {caught.value.brief}`" in README


def test_the_hello_recipe_has_at_most_forty_lines():
    assert len((ROOT / "recipes/hello.toml").read_text().splitlines()) <= 40


def test_the_runner_sees_every_difference_but_seconds_and_ellipses():
    assert matches("a …\n…\nlast 0.01 s\n", "a b c\nx\ny\nlast 1.23 s\n")
    assert matches("…\n", "")
    assert not matches("a\n", "a\nb\n")
    assert not matches("", "error\n")
    assert not matches("a.c\n", "abc\n")
    assert not matches("a …\n", "a b\nc\n")


def test_the_runner_reads_commands_files_and_what_they_write():
    page = "```console\n$ echo a\na\n# id -u\n0\n```\n```toml file=x/y.toml\nb = 1\n```\n```console\n$ cat x/y.toml\n?\n```\n"
    assert [step[0] for step in steps(page)] == ["echo a", "id -u", "x/y.toml", "cat x/y.toml"]
    assert renewed(page.replace("# id -u\n0\n", "")).endswith("$ cat x/y.toml\nb = 1\n```\n")


def _checkout(target: Path) -> Path:
    """Copy what git would hand out of the working tree, committed or not."""
    listing = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(listing, capture_output=True, check=False)
    if result.returncode:
        pytest.skip("this is no git checkout")
    for name in result.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def _two_commands() -> list[str]:
    return re.findall(r"^```sh\n(.*)\n```$", README, re.MULTILINE)


def _run(command: str, checkout: Path, home: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_", "http", "HTTP"))
        or name in {"XDG_CONFIG_DIRS", "NO_PROXY", "no_proxy"}
    }
    python = (
        Path(sys.executable).resolve().parent
    )  # the interpreter behind the virtual environment of this test
    environment = {"PATH": f"{python}:/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8", **kept, **extra}
    return subprocess.run(
        ["sh", "-c", command], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )


def _expected(text: str) -> str:
    return next(step.expected for step in steps(README) if isinstance(step, Command) and step.text == text)


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["cc", "false"])
def test_the_first_command_ends_with_the_tree_and_the_digest_with_and_without_compiler(tmp_path, compiler):
    home = tmp_path / "home"
    home.mkdir()
    checkout = _checkout(tmp_path / "checkout")
    result = _run(_two_commands()[0], checkout, home, CC=compiler)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(_expected("cfsbuild ls --tree hello.toml"))
    digest = _expected("cfsbuild build hello.toml").splitlines()[-1]
    assert digest in result.stdout.splitlines()
    doctor = _run(".venv/bin/cfsbuild doctor", checkout, home).stdout
    assert ("image writer                   native" in doctor) is (
        compiler == "cc" and shutil.which("cc") is not None
    )
    (wheel,) = checkout.glob(".venv/lib/python3*/site-packages/cfsbuild")
    assert (wheel / "py.typed").exists()
    assert {path.name for path in (ROOT / "templates").glob("*.j2")} <= {
        path.name for path in (wheel / "templates").glob("*.j2")
    }
    assert list(wheel.glob("*/native")) == []


@pytest.mark.slow
def test_the_second_command_runs_the_tests(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    checkout = _checkout(tmp_path / "checkout")
    # A part of the tests is enough: the rest runs around this one.
    result = _run(
        _two_commands()[1], checkout, home, PYTEST_ADDOPTS="-k 'test_recipe_parse or test_acl or test_merge'"
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert re.search(r"\d\d+ passed", result.stdout)


@pytest.mark.slow
def test_the_source_distribution_has_every_file_of_the_checkout(tmp_path):
    setuptools = pytest.importorskip("setuptools", minversion="77")
    checkout = _checkout(tmp_path / "checkout")
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True, text=True
    )
    files = {name for name in tracked.stdout.split("\0") if (ROOT / name).is_file()}
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    made = subprocess.run(
        [sys.executable, "-c", code, tmp_path], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        packed = {member.name.partition("/")[2] for member in tar}
    assert files - packed == set(), setuptools.__version__
