"""Paths in messages read as one would type them in the working directory."""

from pathlib import Path

from cfsbuild.cli.errors_text import problem_text
from cfsbuild.errors import Origin, Problem


def test_paths_below_the_working_directory_are_relative(lab, run):
    Path("gate.toml").write_text('[image]\nname = "gate"\n[nodes.a]\nkind = "dri"\n')
    outcome = run("check", "gate.toml")
    assert outcome.status == 2
    assert outcome.err.startswith("gate.toml:4: error:")
    assert "    4 | kind" in outcome.err
    assert str(lab.directory) not in outcome.err


def test_other_paths_are_left_alone(tmp_path, monkeypatch):
    here = tmp_path / "a"
    here.mkdir()
    monkeypatch.chdir(here)
    details = f"{here}/x, ({here}/y:3) but /mnt{here}/z and {here}"
    text = problem_text(Problem("b", details, "", Origin(f"{tmp_path}/other.toml")))
    assert text == f"{tmp_path}/other.toml: error: b\n  x, (y:3) but /mnt{here}/z and {here}"


def test_a_removed_working_directory_does_not_hide_the_error(tmp_path, monkeypatch):
    here = tmp_path / "gone"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    assert problem_text(Problem("b", "d")) == "error: b\n  d"
    monkeypatch.chdir(tmp_path)
