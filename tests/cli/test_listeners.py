import io
import sys
import threading
import time

import pytest

from cfsbuild import events
from cfsbuild.cli import listeners, progress
from cfsbuild.cli.listeners import PlainLines, json_lines, listening
from cfsbuild.cli.progress import ProgressBar
from cfsbuild.cli.settings import Settings

STARTED = events.BuildStarted(image="demo", jobs=("a", "b"))


class Terminal(io.StringIO):
    def isatty(self):
        return True


def chosen(monkeypatch, stream, **settings):
    monkeypatch.setattr(sys, "stderr", stream)
    with listening(Settings(**settings)) as listener:
        return (
            type(listener).__name__
            if not callable(getattr(listener, "__name__", None))
            else listener.__name__
        )


def test_the_terminal_and_the_options_choose_the_listener(monkeypatch):
    with monkeypatch.context() as patch:
        assert chosen(patch, Terminal()) == "ProgressBar"
        assert chosen(patch, io.StringIO()) == "PlainLines"
        assert chosen(patch, Terminal(), progress="plain") == "PlainLines"
    for settings, expected in (
        ({"quiet": True}, events.ignore),
        ({"progress": "none"}, events.ignore),
        ({"progress": "json", "quiet": True}, json_lines),
    ):
        with listening(Settings(**settings)) as listener:
            assert listener is expected


def test_cached_jobs_are_lines_only_when_verbose(capsys):
    cached = events.JobCached(job="a", kind="dir", key="")
    PlainLines(verbose=False)(cached)
    PlainLines(verbose=True)(cached)
    assert capsys.readouterr().err == "a: cached\n"


def test_a_job_that_runs_is_one_line_and_two_when_verbose(capsys):
    ran = (
        events.JobStarted(job="a", kind="dir", reason="first build"),
        events.JobFinished(job="a", kind="dir", key="", output="", seconds=0.5),
    )
    for verbose in (False, True):
        for event in ran:
            PlainLines(verbose=verbose)(event)
    done = "a: done in 0.50 s\n"
    assert capsys.readouterr().err == f"{done}a (dir): running: first build\n{done}"


def test_names_that_are_not_utf8_are_escaped(capsys):
    PlainLines(verbose=False)(events.Note(text="\udcff"))
    assert capsys.readouterr().err == "note: \\udcff\n"


def test_a_note_says_what_it_is_about_and_the_line_as_one_would_type_it(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = PlainLines(verbose=False)
    lines(events.Note(text="odd", job="app", origin=f"{tmp_path}/sub/recipe.toml:3"))
    lines(events.Note(text="odd", job="app"))
    lines(events.Note(text="odd"))
    expected = "app: note: sub/recipe.toml:3: odd\napp: note: odd\nnote: odd\n"
    assert capsys.readouterr().err == expected


def soon_drawn(monkeypatch):
    """Return a terminal, and a bar that appears on it within moments."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "BAR_AFTER_SECONDS", 0.1)
    monkeypatch.setattr(progress, "TICK_SECONDS", 0.02)
    return stream, ProgressBar(PlainLines(verbose=False))


def wait_for(stream, text):
    deadline = time.monotonic() + 10
    while text not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.02)


def test_no_bar_appears_for_what_is_quick(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    bar = ProgressBar(PlainLines(verbose=False))
    bar(STARTED)
    bar(events.BuildFinished(image="demo", digest="", seconds=0.1, ran=0, cached=2))
    bar.close()
    assert stream.getvalue() == "demo: nothing to do (0.10 s)\n"


def test_a_bar_appears_for_what_takes_longer_and_is_removed_at_the_end(monkeypatch):
    stream, bar = soon_drawn(monkeypatch)
    bar(STARTED)
    bar(events.JobStarted(job="a", kind="tree"))
    bar(events.Progress(job="a", unit="bytes", done=1 << 20, total=4 << 20))
    wait_for(stream, "a 1.0M/4.0M bytes (25 %)")
    bar(events.JobFinished(job="a", kind="tree", key="", output="", seconds=1.0))
    bar.close()
    text = stream.getvalue()
    assert "demo 0/2" in text
    assert "a 1.0M/4.0M bytes (25 %)" in text
    assert "a: done in 1.00 s\n" in text
    assert text.rsplit("\r", 1)[-1].strip() == ""
    assert listeners.BAR_AFTER_SECONDS == 1.0


def test_an_interruption_while_the_bar_starts_leaves_one_that_can_be_closed(monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    bar = ProgressBar(PlainLines(verbose=False))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bar(STARTED)
    bar.close()


def test_a_machine_tells_what_it_does(capsys):
    lines = PlainLines(verbose=False)
    lines(events.BootStep(text="opening it"))
    lines(events.BootFinished(seconds=8.04))
    assert capsys.readouterr().err == "booting: opening it\nbooted in 8.0 s\n"


def test_a_machine_that_starts_is_a_bar_that_says_what_it_does(monkeypatch):
    stream, bar = soon_drawn(monkeypatch)
    bar(events.BuildFinished(image="demo", digest="", seconds=0.1, ran=0, cached=2))
    for step in ("the kernel", "mounting"):
        bar(events.BootStep(text=step))
        wait_for(stream, step)
    bar(events.BootFinished(seconds=8.04))
    text = stream.getvalue()
    bar.close()
    assert text.index("the kernel") < text.index("mounting")
    assert "booting 0/1" in text
    assert text.endswith("booted in 8.0 s\n")
    assert "booting: " not in text
