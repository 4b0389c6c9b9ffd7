"""The handlers themselves; whole programs are interrupted in tests/e2e/test_signals.py."""

import contextlib
import signal
import subprocess
import sys
import time

import pytest

from cfsbuild.cli import main as main_module
from cfsbuild.cli.signals import Interrupted, Signals, Terminated


@pytest.fixture
def signals():
    installed = Signals()
    installed.install()
    yield installed
    installed.restore()


def swallow():
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGTERM)
    time.sleep(5)
    return "the signal is lost"


def interrupted_twice(cleaned):
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        cleaned.append(True)


def test_an_exception_that_somebody_swallows_is_raised_again(signals):
    with pytest.raises(Terminated) as caught:
        swallow()
    signals.settle()
    assert caught.value.status == 143


class Ends:
    """Whatever is raised when this goes is cleared by the interpreter."""

    def __init__(self, act):
        self._act = act

    def __del__(self):
        self._act()


def cleared():
    Ends(lambda: signal.raise_signal(signal.SIGHUP))
    time.sleep(5)
    return "the signal is lost"


def test_one_that_the_interpreter_clears_is_raised_again_and_nothing_is_said_of_it(monkeypatch):
    told = []
    monkeypatch.setattr("sys.unraisablehook", lambda cleared: told.append(cleared.exc_type))
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signals = Signals()
    signals.install()
    try:
        with pytest.raises(Terminated) as caught:
            cleared()
        signals.settle()
        assert caught.value.status == 129
        assert told == []
        Ends(lambda: 1 // 0)
        assert told == [ZeroDivisionError]
    finally:
        signals.restore()
        signal.signal(signal.SIGHUP, before)
    Ends(lambda: {}[0])
    assert told == [ZeroDivisionError, KeyError]


def test_a_second_signal_does_not_interrupt_the_cleaning_up(signals):
    cleaned = []
    with pytest.raises(Interrupted):
        interrupted_twice(cleaned)
    signals.settle()
    assert cleaned == [True]


def test_a_signal_after_a_long_cleaning_up_is_heeded(signals, monkeypatch):
    monkeypatch.setattr("cfsbuild.cli.signals.PATIENCE", 0.0)
    cleaned = []
    with pytest.raises(Interrupted):
        interrupted_twice(cleaned)
    signals.settle()
    assert cleaned == []


def test_what_was_there_before_comes_back():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    installed = Signals()
    installed.install()
    assert [signal.getsignal(number) for number in numbers] != before
    installed.restore()
    assert [signal.getsignal(number) for number in numbers] == before


class Stops:
    """A descriptor whose class's creation is interrupted: Python 3.11 makes a RuntimeError of that."""

    def __set_name__(self, owner, name):
        signal.raise_signal(signal.SIGTERM)


def interrupted_in_an_import(*_):
    return type("Imported", (), {"attribute": Stops()})


@pytest.mark.parametrize("arguments", [["doctor"], ["mkcomposefs", "a", "b"]])
def test_an_interruption_that_an_import_turned_into_an_error_is_still_one(monkeypatch, capsys, arguments):
    monkeypatch.setattr(main_module, "run_front_end", interrupted_in_an_import)
    monkeypatch.setattr("cfsbuild.cli.group.root.make_context", interrupted_in_an_import)
    assert main_module.main(arguments) == 143
    assert "error" not in capsys.readouterr().err


LATE = """
import os, signal, sys
from cfsbuild.cli import main, signals
def die(self):
    os.kill(os.getpid(), signal.SIGINT)
    print("not reached")
signals.Signals.die = die
sys.argv = ["cfsbuild", "--version"]
sys.exit(main.main())
"""


def test_a_signal_when_all_is_done_ends_the_process_without_a_word():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""
    assert "not reached" not in done.stdout
