"""The threads on which jobs run: they end when they are told to, whatever interrupted the one that told them."""

import threading
import time

import pytest
from interruption import InterruptAt

from cfsbuild.build import workers
from cfsbuild.build.workers import Workers


def submit_two(pool, interruption, done):
    """Submit two pieces of work, interrupted where `interruption` says."""
    with interruption:
        for number in range(2):
            pool.submit(str(number), lambda: done.append(time.monotonic()))


def test_work_is_done_and_what_it_raises_is_handed_on():
    pool = Workers(2)
    pool.submit("divides", lambda: 6 // 3)
    pool.submit("fails", lambda: 6 // 0)
    completions = {completion.token: completion for completion in (pool.next(), pool.next())}
    assert completions["divides"].value == 2
    assert isinstance(completions["fails"].error, ZeroDivisionError)
    assert pool.close(patience=10)


def test_no_more_threads_work_than_there_are_jobs():
    pool, at_once = Workers(2), []
    busy = threading.Semaphore(2)

    def work():
        at_once.append(busy.acquire(blocking=False))
        time.sleep(0.01)
        busy.release()

    for number in range(8):
        pool.submit(str(number), work)
    for _ in range(8):
        assert pool.next().error is None
    assert at_once == [True] * 8
    assert pool.close(patience=10)


def test_queued_work_is_dropped_and_what_runs_too_long_is_told():
    pool, go, done = Workers(1), threading.Event(), []
    began = threading.Event()

    def long():
        began.set()
        go.wait(30)

    pool.submit("long", long)
    pool.submit("queued", lambda: done.append(True))
    assert began.wait(10)
    assert not pool.close(patience=0.05)
    go.set()
    assert pool.close(patience=10)
    assert done == []


def assert_closes(pool, done, where):
    assert pool.close(patience=10), where
    closed = time.monotonic()
    time.sleep(0.01)
    assert not [moment for moment in done if moment > closed], where


def test_an_interruption_at_any_line_leaves_workers_that_can_be_closed():
    calm, done = InterruptAt(0, workers.__file__), []
    pool = Workers(2)
    submit_two(pool, calm, done)
    assert_closes(pool, done, "calm")
    assert calm.lines > 12
    for number in range(1, calm.lines + 1):
        pool, done = Workers(2), []
        interruption = InterruptAt(number, workers.__file__)
        with pytest.raises(KeyboardInterrupt):
            submit_two(pool, interruption, done)
        assert_closes(pool, done, interruption.where)


@pytest.mark.parametrize("when", ["before it is there", "when it is there"])
def test_an_interruption_while_a_thread_starts_leaves_workers_that_can_be_closed(monkeypatch, when):
    start, go, done = threading.Thread.start, threading.Event(), []

    def interrupted(thread):
        if when == "when it is there":
            start(thread)
        raise KeyboardInterrupt

    def work():
        go.wait(10)
        done.append(time.monotonic())

    pool = Workers(2)
    pool.submit("first", work)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pool.submit("second", work)
    go.set()
    assert_closes(pool, done, when)


def test_where_no_thread_can_be_had_fewer_work(monkeypatch):
    pool, go = Workers(4), threading.Event()
    pool.submit("first", lambda: go.wait(10))

    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool.submit("second", lambda: threading.current_thread().name)
    go.set()
    assert pool.next().value is True
    assert pool.next().value == "cfsbuild-1"
    assert pool.close(patience=10)

    alone = Workers(4)
    alone.submit("only", threading.get_ident)
    assert alone.next().value == threading.get_ident()
    assert alone.close(patience=10)
