"""Whatever goes wrong: the text, the JSON document and the exit status that the user gets."""

import errno
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import msgspec
import pytest

from cfsbuild.cli import errors_text, funnel, lazy
from cfsbuild.cli.main import main
from cfsbuild.cli.settings import common_options
from cfsbuild.errors import (
    BuildError,
    CfsError,
    NotReproducibleError,
    Origin,
    Problem,
    RecipeError,
    StoreError,
    VerificationError,
)


@pytest.fixture
def failing(monkeypatch, run):
    """Run a verb that raises what it is told to."""

    def call(error, *arguments):
        @click.command("ls")
        @common_options
        def command():
            raise error

        monkeypatch.setattr(lazy.LazyGroup, "get_command", lambda *_: command)
        return run("ls", *arguments)

    return call


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BuildError("b"), 1),
        (RecipeError((Problem("r"),)), 2),
        (NotReproducibleError("n"), 4),
        (VerificationError("v"), 5),
        (StoreError("s"), 7),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 7),
        (CfsError("c"), 70),
        (ValueError("bug"), 70),
        (RecursionError("deep"), 70),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(), 141),
    ],
)
def test_every_kind_of_failure_has_its_exit_status_and_no_traceback(failing, error, status):
    outcome = failing(error)
    assert outcome.status == status
    assert outcome.out == b""
    assert "Traceback" not in outcome.err


def test_all_problems_are_shown_with_origin_first_quotation_and_hint(failing, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[image]\nnmae = "x"\n\n[nodes.a]\nkind = "fiel"\n')
    problems = (
        Problem(
            "unknown key 'nmae'", resolution="did you mean name?", origin=Origin(str(recipe), 2, "image.nmae")
        ),
        Problem("unknown kind", "one\ntwo", origin=Origin(str(recipe), 5, "nodes.a.kind")),
        Problem("no place at all"),
    )
    outcome = failing(RecipeError(problems))
    assert outcome.err.splitlines() == [
        f"{recipe}:2: error: unknown key 'nmae'",
        '    2 | nmae = "x"',
        "      | ^^^^",
        "  hint: did you mean name?",
        f"{recipe}:5: error: unknown kind",
        '    5 | kind = "fiel"',
        "      | ^^^^",
        "  one",
        "  two",
        "error: no place at all",
        "3 problems",
    ]


def test_of_very_many_problems_as_many_are_shown_as_one_would_read(failing):
    problems = tuple(Problem(f"number {number}") for number in range(60_000))
    lines = failing(RecipeError(problems)).err.splitlines()
    assert lines[:2] == ["error: number 0", "error: number 1"]
    assert lines[-2:] == ["error: number 99", "60000 problems, of which 100 are shown; --json tells all"]
    document = msgspec.json.decode(failing(RecipeError(problems), "--json").err)
    assert len(document["error"]["problems"]) == 60_000
    assert failing(RecipeError(problems[:100])).err.splitlines()[-1] == "100 problems"


def test_the_json_document_has_every_problem_and_a_reason(failing):
    error = RecipeError((Problem("a", "d", "r", Origin("f.toml", 3, "k")), Problem("b")), reason="why")
    document = msgspec.json.decode(failing(error, "--json").err)
    assert document == {
        "version": 1,
        "error": {
            "brief": "a",
            "reason": "why",
            "exit_code": 2,
            "problems": [
                {
                    "brief": "a",
                    "details": "d",
                    "resolution": "r",
                    "origin": {"file": "f.toml", "line": 3, "key": "k"},
                },
                {"brief": "b", "details": "", "resolution": "", "origin": None},
            ],
        },
    }


def test_an_internal_error_asks_for_a_report_and_shows_the_traceback_with_v(failing):
    quiet = failing(ZeroDivisionError("by zero"))
    assert quiet.err.splitlines()[0] == "error: internal error: ZeroDivisionError: by zero"
    assert "run the same command with -v" in quiet.err
    loud = failing(ZeroDivisionError("by zero"), "-v")
    assert "Traceback (most recent call last)" in loud.err
    assert loud.status == 70


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "store gc"),
        (errno.EACCES, "permissions"),
        (errno.EROFS, "read-only"),
        (errno.EMFILE, "ulimit"),
    ],
)
def test_errors_of_the_operating_system_name_the_path_and_a_way_out(failing, number, hint):
    outcome = failing(OSError(number, os.strerror(number), "/some/where"))
    assert outcome.err.startswith(f"error: /some/where: {os.strerror(number)}\n  hint: ")
    assert hint in outcome.err
    document = msgspec.json.decode(failing(OSError(number, os.strerror(number), "/x"), "--json").err)
    assert document["error"]["reason"] == errno.errorcode[number]


def test_names_from_hostile_inputs_cannot_drive_the_terminal(failing):
    evil = os.fsdecode(b"\x1b[2Jx\xff\x07")
    outcome = failing(StoreError(f"cannot read {evil}", details=evil))
    assert "\x1b" not in outcome.err
    assert "\\x1b[2Jx\\xff\\x07" in outcome.err
    assert (
        "cannot read"
        in msgspec.json.decode(failing(StoreError(f"cannot read {evil}"), "--json").err)["error"]["brief"]
    )


def test_errors_are_coloured_only_when_asked(failing):
    assert "\x1b" not in failing(StoreError("x")).err
    assert "\x1b[1;31merror:\x1b[0m x" in failing(StoreError("x"), "--color=always").err


def test_a_quotation_needs_a_readable_file(tmp_path):
    problem = Problem("x", origin=Origin(str(tmp_path / "gone.toml"), 3, "k"))
    assert errors_text.problem_text(problem).splitlines() == [f"{tmp_path}/gone.toml:3: error: x"]
    (tmp_path / "short").write_text("one\n")
    past_end = Problem("x", origin=Origin(str(tmp_path / "short"), 30, "k"))
    assert len(errors_text.problem_text(past_end).splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["bild"], "There is no verb 'bild'. Did you mean build?"),
        (["ls"], "Missing argument 'IMAGE'"),
        (["ls", "--nope", "x"], "--nope"),
        (["--progress=loud", "ls", "x"], "loud"),
        (["-j0", "ls", "x"], "0"),
        (["-C", "/nonexistent/x", "ls", "x"], "/nonexistent/x"),
    ],
)
def test_wrong_usage_is_exit_2_with_a_pointer_to_help(run, arguments, text):
    outcome = run(*arguments)
    assert outcome.status == 2
    assert text in outcome.err
    assert "--help" in outcome.err


def test_wrong_usage_is_json_too(run):
    for arguments in (("ls", "--json", "--nope"), ("-q", "ls", "--json", "--nope"), ("--json", "nope")):
        error = msgspec.json.decode(run(*arguments).err)["error"]
        assert (error["reason"], error["exit_code"]) == ("usage", 2)


def test_no_arguments_print_help(run):
    outcome = run()
    assert outcome.status == 0
    assert outcome.text.startswith("Usage: cfsbuild")
    assert "130  interrupted" in outcome.text


@pytest.mark.skipif(
    not hasattr(click.exceptions, "NoArgsIsHelpError"), reason="click 8.1 shows help by itself"
)
def test_a_group_without_a_verb_shows_its_help_and_is_wrong_usage(run):
    outcome = run("store")
    assert outcome.status == 2
    assert outcome.err.startswith("Usage: cfsbuild store")
    assert msgspec.json.decode(run("--json", "store").err)["error"]["brief"] == "a verb is missing"


def test_a_recipe_in_place_of_a_verb_is_built(run, monkeypatch):
    built = []

    @click.command("build")
    @click.argument("recipe")
    def command(recipe):
        built.append(recipe)

    monkeypatch.setattr(
        lazy.LazyGroup, "get_command", lambda *arguments: command if arguments[-1] == "build" else None
    )
    assert run("-q", "some/recipe.toml").status == 0
    assert built == ["some/recipe.toml"]


def test_an_exit_status_that_a_verb_returns_is_the_process_exit_status(run, monkeypatch):
    command = click.Command("ls", callback=lambda: 42)
    monkeypatch.setattr(lazy.LazyGroup, "get_command", lambda *_: command)
    assert run("ls").status == 42


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_signals_end_a_verb_with_cleanup_and_the_right_status(tmp_path, name, status):
    script = tmp_path / "slow.py"
    script.write_text(
        "import sys, time, click\n"
        "from cfsbuild.cli import lazy\n"
        "from cfsbuild.cli.main import main\n"
        "def work():\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "    finally:\n"
        "        print('cleaned up', flush=True)\n"
        "lazy.LazyGroup.get_command = lambda *_: click.Command('ls', callback=work)\n"
        "sys.exit(main(['ls']))\n"
    )
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        started = time.monotonic()
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=20)
    assert process.returncode == status
    assert time.monotonic() - started < 2
    assert out == "cleaned up\n"
    assert "Traceback" not in err


def test_a_closed_pipe_ends_quietly(lab):
    image = lab.image()
    program = f"{sys.executable} -m cfsbuild.cli.main ls -R {image}"
    # Full pipes are needed for EPIPE: the listing is repeated until it does not fit.
    script = f"set -o pipefail; for i in 1 2 3; do {program} --json; done 2>err | true; echo $?"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, cwd=lab.directory
    )
    assert "Traceback" not in (lab.directory / "err").read_text()
    assert "Exception ignored" not in (lab.directory / "err").read_text()
    assert done.stdout.strip() in {"141", "0"}


def test_unwritable_standard_output_is_an_error_with_status_7(lab):
    image = lab.image()
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cfsbuild.cli.main", "dump", str(image)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 7
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_in_threads_other_than_the_main_one_do_not_touch_signals():
    results = []
    thread = threading.Thread(target=lambda: results.append(main(["nonsense"])))
    thread.start()
    thread.join()
    assert results == [2]


def test_the_termination_handler_is_restored():
    before = signal.getsignal(signal.SIGTERM)
    main(["nonsense"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_settings_of_a_failed_parse_remember_json_only_before_the_end_of_options():
    wrong = click.UsageError("x")
    assert funnel.settings_of(None, ["ls", "--json"], wrong).json
    assert not funnel.settings_of(None, ["shell", "x", "--", "--json"], wrong).json
    assert not funnel.settings_of(None, ["shell", "x", "ls", "--json"], StoreError("x")).json


@pytest.mark.parametrize("name", ["mkcomposefs", "composefs-info", "mount.composefs"])
def test_front_ends_get_every_argument_and_keep_their_status(run, monkeypatch, name):
    seen = []

    def fake(argv, program_name):
        seen.append((argv, program_name))
        return 9

    module = importlib.import_module("cfsbuild.cli.mount_composefs")
    monkeypatch.setattr(module, "main", fake)
    monkeypatch.setitem(
        importlib.import_module("cfsbuild.cli.verbs").FRONT_ENDS,
        name,
        importlib.import_module("cfsbuild.cli.verbs").FRONT_ENDS["mount.composefs"],
    )
    assert run(name, "--help", "--", "-x", "y").status == 9
    assert run("-q", name, "--help", "--", "-x", "y").status == 9
    assert seen == [(["--help", "--", "-x", "y"], name)] * 2


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StoreError("no store"), "mount.composefs: no store\n"),
        (
            OSError(errno.EIO, "Input/output error", "/x"),
            "mount.composefs: [Errno 5] Input/output error: '/x'\n",
        ),
        (KeyError("k"), "mount.composefs: internal error: KeyError: 'k'\n"),
    ],
)
def test_what_a_front_end_lets_through_is_one_line_and_status_1(run, monkeypatch, error, text):
    def fail(*_):
        raise error

    monkeypatch.setattr(importlib.import_module("cfsbuild.cli.mount_composefs"), "main", fail)
    outcome = run("mount.composefs", "x")
    assert (outcome.status, outcome.err) == (1, text)


@pytest.mark.parametrize("arguments", [["--help"], ["ls", "--help"], ["--version"]])
def test_help_that_cannot_be_written_is_an_error_too(arguments):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cfsbuild.cli.main", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 7
    assert done.stderr.startswith("error: No space left on device")
    assert "Traceback" not in done.stderr
