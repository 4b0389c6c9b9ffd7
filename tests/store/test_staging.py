"""Staging directories: an interruption leaves none behind, and takes none away that a thread still writes to."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import cfsbuild.store
from cfsbuild.errors import StoreError
from cfsbuild.store import layout
from cfsbuild.store.gate import Gate
from cfsbuild.store.store import Store
from cfsbuild.store.transaction import Transaction

ROOM = str(Path(cfsbuild.store.__file__).parent)


class InterruptAt:
    """Raises `KeyboardInterrupt`, once, before the line of the store's code that is the `number`th to run."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lines = 0
        self.where = ("", 0)

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.number:
                self.where = (frame.f_code.co_filename, frame.f_lineno)
                raise KeyboardInterrupt
        return self


def store_something(store: Store, tracer: InterruptAt) -> None:
    sys.settrace(tracer)
    try:
        with store.transaction() as transaction:
            transaction.add_bytes(b"content %d" % tracer.number)
            transaction.commit()
    finally:
        sys.settrace(None)


def test_an_interruption_at_any_line_leaves_no_staging_directory(tmp_path):
    store = Store.init(tmp_path / "store")
    calm = InterruptAt(0)
    store_something(store, calm)
    assert calm.lines > 100
    for number in range(1, calm.lines + 1):
        with pytest.raises(KeyboardInterrupt):
            store_something(store, tracer := InterruptAt(number))
        assert list((tmp_path / "store" / layout.STAGING).iterdir()) == [], tracer.where
    store.close()


def test_an_interruption_while_a_failed_transaction_waits_leaves_the_directory_to_its_writer(tmp_path):
    inside, finish = threading.Event(), threading.Event()
    store = Store.init(tmp_path / "store")

    def write(transaction: Transaction) -> None:
        with transaction.gate.adding():
            inside.set()
            finish.wait()

    def fail() -> None:
        with store.transaction() as transaction:
            threading.Thread(target=write, args=(transaction,), daemon=True).start()
            inside.wait()
            staged.append(transaction.staging_fd)
            threading.Timer(0.2, signal.raise_signal, (signal.SIGINT,)).start()
            raise ValueError

    staged: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.fstat(staged[0]).st_nlink > 0
    finish.set()


def test_nobody_waits_for_a_gate_that_was_closed():
    gate = Gate()
    outcome: list[str] = []
    entered = threading.Event()

    def commit() -> None:
        with gate.committing():
            entered.set()
            closed.wait()

    def add() -> None:
        try:
            with gate.adding():
                outcome.append("in")
        except StoreError:
            outcome.append("refused")

    closed = threading.Event()
    committer = threading.Thread(target=commit, daemon=True)
    committer.start()
    entered.wait()
    waiting = threading.Thread(target=add, daemon=True)
    waiting.start()
    assert not gate.close(patience=0.2)
    waiting.join(5)
    assert outcome == ["refused"]
    closed.set()
    committer.join(5)
    assert gate.close(patience=0)
