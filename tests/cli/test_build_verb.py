import json
import os
import re
import subprocess
import sys

import pytest

from cfsbuild.cli.main import main
from cfsbuild.store.store import Store

RECIPE = """\
[image]
name = "demo"
version = "1"
[vars]
host = "edge"
[profiles.debug.vars]
host = "debug"
[nodes.etc]
kind = "dir"
target = "/etc"
[nodes.hostname]
kind = "file"
target = "/etc/hostname"
content = "{{ host }}\\n"
[nodes.users]
kind = "accounts"
needs = ["etc"]
users = [{ name = "app", uid = 990, home = "/" }]
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CFSBUILD_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


def run(capfd, *arguments):
    status = main(list(arguments))
    out, err = capfd.readouterr()
    return status, out, err


def test_standard_output_is_digest_and_path_and_nothing_else(place, capfd):
    status, out, _ = run(capfd, "build")
    assert status == 0
    assert re.fullmatch(r"[0-9a-f]{64}  out/demo-1\.cfs\n", out)


def test_the_log_says_what_ran_and_why(place, capfd):
    run(capfd, "build")
    (place / "recipe.toml").write_text(RECIPE.replace('"edge"', '"core"'))
    _, _, err = run(capfd, "build", "-v")
    assert 'hostname (file): running: content: "edge\\n" → "core\\n"' in err
    assert "etc: cached" in err
    assert re.search(r"demo-1: 2 ran, 2 cached \(\d+\.\d\d s\)\n$", err)


def test_quiet_says_nothing_but_the_result(place, capfd):
    _, out, err = run(capfd, "-q", "build")
    assert (bool(out), err) == (True, "")


def test_json_is_one_document(place, capfd):
    _, out, _ = run(capfd, "build", "--json")
    document = json.loads(out)
    assert document["version"] == 1
    (image,) = document["images"]
    assert image["image"] == "demo-1"
    assert {job["outcome"] for job in image["jobs"]} == {"ran"}


def test_json_progress_is_one_event_a_line_on_standard_error(place, capfd):
    _, _, err = run(capfd, "build", "--progress", "json")
    found = [json.loads(line) for line in err.splitlines()]
    assert found[0] == {
        "event": "build-started", "version": 1, "image": "demo-1", "jobs": ["etc", "hostname", "users", "targets.image"],
    }  # fmt: skip
    assert found[-1]["event"] == "build-finished"


def test_profiles_and_variables_shape_the_image(place, capfd):
    digests = {
        run(capfd, "-q", "build", *options)[1].split()[0]
        for options in ((), ("--profile", "debug"), ("-o", "host=x"), ("-o", "host=debug"))
    }
    assert len(digests) == 3


def test_output_goes_where_it_is_asked_for(place, capfd):
    _, out, _ = run(capfd, "build", "--output", "elsewhere")
    assert out.endswith("  elsewhere/demo-1.cfs\n")
    assert (place / "elsewhere" / "demo-1.manifest.json").exists()


def test_a_matrix_gives_one_line_for_each_image(place, capfd):
    (place / "recipe.toml").write_text(RECIPE + '[matrix]\nhost = ["a", "b"]\n')
    _, out, _ = run(capfd, "-q", "build")
    assert [line.split("  ")[1] for line in out.splitlines()] == ["out/demo-1-a.cfs", "out/demo-1-b.cfs"]


def test_a_dry_run_says_what_would_run_and_writes_nothing(place, capfd):
    status, out, _ = run(capfd, "build", "-n")
    assert status == 0
    assert out.splitlines() == [
        "demo-1:",
        "  etc            dir       would run: first build",
        "  hostname       file      would run: first build",
        "  users          accounts  may run: depends on what etc will give",
        "  targets.image  image     may run: depends on what etc, hostname, users will give",
    ]
    assert sorted(path.name for path in place.iterdir()) == ["recipe.toml"]


@pytest.mark.parametrize("verb", [["build", "-n"], ["build"], ["why"], ["graph"]])
def test_a_dry_run_refuses_what_is_no_store_as_the_build_does(place, capfd, verb):
    (place / "precious").mkdir()
    (place / "precious/letter").touch()
    status, out, err = run(capfd, *verb, "--store", str(place / "precious"))
    assert (status, out) == (7, "")
    assert "is not empty and not a store" in err


@pytest.mark.parametrize("verb", [["build", "-n"], ["build"]])
def test_a_dry_run_refuses_a_store_of_another_algorithm_as_the_build_does(place, capfd, verb):
    run(capfd, "store", "init", "--digest", "sha512", "store")
    status, out, err = run(capfd, *verb, "--store", str(place / "store"))
    assert (status, out) == (2, "")
    assert "sha512" in err


def test_force_runs_everything_again(place, capfd):
    run(capfd, "build")
    _, _, err = run(capfd, "build", "-f", "-v")
    assert "etc (dir): running: forced" in err
    assert "4 ran, 0 cached" in err


def test_check_builds_twice_and_gives_the_image(place, capfd):
    first = run(capfd, "-q", "build")
    status, out, err = run(capfd, "build", "--check")
    assert (status, out) == (0, first[1])
    assert "second build from nothing" in err


def test_a_missing_recipe_is_an_error_of_usage_with_a_hint(place, capfd):
    status, out, err = run(capfd, "build", "nowhere.toml")
    assert (status, out) == (2, "")
    assert "there is no recipe nowhere.toml" in err
    assert "cfsbuild init" in err


@pytest.mark.parametrize("text", ["host", "=x"])
def test_an_option_that_is_no_assignment_is_an_error_of_usage(place, capfd, text):
    status, _, err = run(capfd, "build", "-o", text)
    assert status == 2
    assert "KEY=VALUE" in err


def test_every_problem_of_a_recipe_is_shown_with_its_line(place, capfd):
    (place / "recipe.toml").write_text(
        RECIPE.replace('["etc"]', '["ect"]') + 'bogus = 1\n[nodes.x]\nkind = "dri"\n'
    )
    status, out, err = run(capfd, "build")
    assert (status, out) == (2, "")
    assert "bogus" in err
    assert "dri" in err
    assert not (place / "store").exists()


def test_a_failing_node_gives_exit_status_1_and_the_rest_is_kept(place, capfd):
    source = place / "tree"
    source.mkdir()
    (source / "f").write_text("")
    text = RECIPE + '[nodes.t]\nkind = "tree"\nsource = "tree"\ntarget = "/t"\ninclude = ["nothing"]\n'
    (place / "recipe.toml").write_text(text)
    status, out, err = run(capfd, "build", "-k")
    assert (status, out) == (1, "")
    assert "t: failed:" in err
    assert "targets.image: skipped, since t failed" in err
    with Store.open(place / "store") as store:
        assert store.refs() == {}
    (place / "recipe.toml").write_text(RECIPE)
    assert "1 ran, 3 cached" in run(capfd, "build")[2]


def test_paths_that_are_not_utf8_are_shown_escaped(place):
    done = subprocess.run(
        [sys.executable, "-m", "cfsbuild.cli.main", "-q", "build", "--output", b"\xff\xfe"],
        capture_output=True,
        check=False,
        env={"CFSBUILD_STORE": str(place / "store"), "PATH": "/usr/bin", "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(b"demo-1.cfs\n")


def test_a_store_that_others_can_write_to_is_used_only_where_the_configuration_says_so(place, capfd):
    run(capfd, "build")
    (place / "store").chmod(0o777)
    for verb in (["build", "--force"], ["why", "recipe.toml"], ["build", "-n"], ["graph"]):
        status, _, err = run(capfd, *verb)
        assert (status, "other users can write to the store" in err) == (7, True), verb
    (place / "cfsbuild.toml").write_text("shared_store = true\n")
    for verb in (["build", "--force"], ["why", "recipe.toml"], ["build", "-n"], ["graph"]):
        assert run(capfd, *verb)[0] == 0, verb


def test_a_remembered_build_does_not_hide_that_others_can_write_to_the_store(place, capfd):
    (place / "cfsbuild.toml").write_text("shared_store = true\n")
    run(capfd, "build")
    (place / "store").chmod(0o777)
    assert run(capfd, "build")[0] == 0
    (place / "cfsbuild.toml").unlink()
    assert "other users can write to the store" in run(capfd, "build")[2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a store away")
def test_a_store_of_another_user_is_written_only_if_the_configuration_trusts_that_user(place, capfd):
    run(capfd, "build")
    os.chown(place / "store", 12345, -1)
    assert "who is not trusted" in run(capfd, "build", "--force")[2]
    (place / "cfsbuild.toml").write_text("trusted_uids = [12345]\n")
    assert run(capfd, "build", "--force")[0] == 0
