"""Work on another thread: what it returns and raises arrives at who asks."""

import contextlib
import signal
import threading
import time

import pytest

from cfsbuild.begun import Begun, at_once


def raising(error):
    raise error


def test_what_was_begun_goes_on_meanwhile_and_its_value_arrives():
    go = threading.Event()
    begun = Begun(lambda: go.wait(10), name="test")
    go.set()
    assert begun.result() is True


def test_what_it_raises_is_raised_where_it_is_asked_for():
    begun = Begun(lambda: raising(KeyError("lost")), name="test")
    begun.settle()
    with pytest.raises(KeyError, match="lost"):
        begun.result()


def test_calls_made_at_once_wait_for_each_other_and_return_in_order():
    together = threading.Barrier(3)

    def call(number):
        together.wait(10)
        return number

    assert at_once([lambda number=number: call(number) for number in range(3)], name="test") == [0, 1, 2]
    assert at_once([], name="test") == []


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_is_raised_when_all_have_ended(failing):
    ended = []

    def call(number):
        if number == failing:
            raise OSError(number)
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(OSError, match=str(failing)):
        at_once([lambda number=number: call(number) for number in range(3)], name="test")
    assert sorted(ended) == [number for number in range(3) if number != failing]


@contextlib.contextmanager
def interrupted_after(seconds):
    """Raise KeyboardInterrupt on this thread after a while."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("own_seconds", [0, 10])
def test_an_interruption_lets_the_others_end(own_seconds):
    go, ended = threading.Event(), []

    def slow():
        go.wait(10)
        time.sleep(0.2)
        ended.append(True)

    with interrupted_after(0.1):
        go.set()
        at_once([slow, lambda: time.sleep(own_seconds)], name="test")
    assert ended == [True]


def test_an_interruption_does_not_wait_long(monkeypatch):
    monkeypatch.setattr("cfsbuild.begun.PATIENCE", 0.05)
    never = threading.Event()
    with interrupted_after(0.1):
        at_once([lambda: never.wait(60), lambda: None], name="test")
    never.set()


def test_where_there_is_no_thread_to_be_had_the_work_is_done_at_once(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    here = threading.get_ident()
    assert at_once([threading.get_ident] * 2, name="test") == [here, here]
    begun = Begun(lambda: raising(KeyError("lost")), name="test")
    with pytest.raises(KeyError):
        begun.result()


def test_what_an_interruption_hides_from_its_caller_is_waited_for(monkeypatch):
    start, ended = threading.Thread.start, []

    def interrupted(thread):
        start(thread)
        raise KeyboardInterrupt

    def slow():
        time.sleep(0.1)
        ended.append(True)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        at_once([slow, lambda: None], name="test")
    assert ended == [True]
