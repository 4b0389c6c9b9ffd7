"""Global options, environment and configuration files, as verbs see them."""

import io
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cfsbuild.cli.group import root
from cfsbuild.cli.settings import Settings, common_options, pass_settings, resolve, wants_color
from cfsbuild.errors import CfsError


@click.command("probe")
@common_options("json", "jobs")
@click.option("-n", "--numeric", is_flag=True)
@pass_settings
def probe(settings: Settings, *, numeric: bool) -> None:
    click.echo(
        f"{settings.json} {settings.job_count} {settings.verbose} {settings.store} {numeric} {Path.cwd()}"
    )


@click.command("bare")
@common_options
@pass_settings
def bare(settings: Settings) -> None:
    click.echo(f"{settings.quiet} {settings.dry_run} {settings.progress}")


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("CFSBUILD_STORE", "CFSBUILD_JOBS", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home/.config"))
    (tmp_path / "home/.config/cfsbuild").mkdir(parents=True)
    (tmp_path / "project/deep/er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project/deep/er")
    return tmp_path / "project"


def run(arguments, monkeypatch):
    monkeypatch.setitem(root.commands, "probe", probe)
    monkeypatch.setattr(
        type(root), "get_command", lambda *arguments: {"probe": probe, "bare": bare}[arguments[-1]]
    )
    monkeypatch.setattr(type(root), "resolve_command", click.Group.resolve_command)
    result = CliRunner().invoke(root, arguments)
    assert result.exit_code == 0, result.output
    return result.output.split()


def test_global_options_are_accepted_before_and_after_the_verb(project, monkeypatch):
    before = run(["--json", "-j3", "-v", "--store", "/s", "probe"], monkeypatch)
    after = run(["probe", "--json", "-j3", "-v", "--store", "/s"], monkeypatch)
    assert before == after == ["True", "3", "1", "/s", "False", str(Path.cwd())]


def test_verbosity_adds_up(project, monkeypatch):
    assert run(["-v", "probe", "-vv"], monkeypatch)[2] == "3"


def test_what_stands_after_the_verb_wins(project, monkeypatch):
    assert run(["-j3", "probe", "-j5"], monkeypatch)[1] == "5"


def test_a_flag_that_the_verb_declares_is_the_verbs(project, monkeypatch):
    assert run(["probe", "-n"], monkeypatch)[4] == "True"


def test_bare_common_options_take_everything(project, monkeypatch):
    assert run(["bare", "-q", "-n", "--progress=plain"], monkeypatch) == ["True", "True", "plain"]


def test_help_of_a_verb_lists_only_the_options_that_it_names():
    text = CliRunner().invoke(probe, ["--help"]).output
    assert "--json" in text
    assert "--jobs" in text
    assert "--keep-going" not in text


def test_minus_c_changes_the_directory_and_comes_back(project, monkeypatch):
    here = Path.cwd()
    assert run(["-C", "..", "probe"], monkeypatch)[5] == str(here.parent)
    assert Path.cwd() == here


def test_a_project_file_is_found_upward_and_paths_are_relative_to_it(project):
    (project / "cfsbuild.toml").write_text('store = "st"\njobs = 7\n')
    found = resolve(Settings())
    assert (found.store, found.jobs) == (project / "st", 7)


def test_the_local_file_the_environment_and_the_option_override_in_this_order(project, monkeypatch, tmp_path):
    user = tmp_path / "home/.config/cfsbuild/config.toml"
    user.write_text('store = "/from-user"\njobs = 2\n')
    assert resolve(Settings()).store == Path("/from-user")
    (project / "cfsbuild.toml").write_text('store = "st"\n')
    assert (resolve(Settings()).store, resolve(Settings()).jobs) == (project / "st", 2)
    (project / "cfsbuild.local.toml").write_text('store = "mine"\n')
    assert resolve(Settings()).store == project / "mine"
    monkeypatch.setenv("CFSBUILD_STORE", "/from-environment")
    assert resolve(Settings()).store == Path("/from-environment")
    assert resolve(Settings(store=Path("/given"))).store == Path("/given")


def test_without_anything_the_store_is_in_the_users_data_directory(project, tmp_path, monkeypatch):
    assert resolve(Settings()).store == tmp_path / "home/.local/share/cfsbuild/store"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert resolve(Settings()).store == Path("/data/cfsbuild/store")


def test_every_wrong_key_is_reported_with_its_line_and_a_suggestion(project):
    (project / "cfsbuild.toml").write_text('# mine\nstroe = "x"\njobs = 0\nstore = 3\n[extra]\na = 1\n')
    with pytest.raises(CfsError) as caught:
        resolve(Settings())
    problems = caught.value.problems()
    assert [(problem.origin.line, problem.origin.key) for problem in problems] == [
        (2, "stroe"),
        (3, "jobs"),
        (4, "store"),
        (5, "extra"),
    ]
    assert problems[0].resolution == "did you mean store?"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "line", "brief"),
    [
        (b"store = \n", 1, "not valid TOML"),
        (b"jobs = 1\n# \xff\n", 2, "not UTF-8"),
        (b"#" * 2**21, 0, "larger"),
    ],
)
def test_an_unreadable_file_says_where_and_why(project, text, line, brief):
    (project / "cfsbuild.toml").write_bytes(text)
    with pytest.raises(CfsError, match=brief) as caught:
        resolve(Settings())
    assert caught.value.origin.line == line


@pytest.mark.parametrize("value", ["many", "0", "-1", "99999", "٣"])
def test_a_senseless_job_count_in_the_environment_is_a_usage_error(project, monkeypatch, value):
    monkeypatch.setenv("CFSBUILD_JOBS", value)
    with pytest.raises(CfsError, match="CFSBUILD_JOBS") as caught:
        resolve(Settings())
    assert caught.value.exit_code == 2


def test_colour_is_for_terminals_unless_told_otherwise(monkeypatch):
    class Terminal:
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color("auto", Terminal())
    assert not wants_color("auto", io.StringIO())
    assert not wants_color("never", Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_color("auto", Terminal())
    assert wants_color("always", Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_color("auto", Terminal())
