"""Staging directories: an interruption leaves none behind, and takes none away that a thread still writes to."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from interruption import InterruptAt

import cfsbuild.store
from cfsbuild.errors import StoreError
from cfsbuild.store import layout
from cfsbuild.store.gate import Gate
from cfsbuild.store.store import Store
from cfsbuild.store.transaction import Transaction

ROOM = str(Path(cfsbuild.store.__file__).parent)


def store_something(store: Store, interruption: InterruptAt) -> None:
    with interruption, store.transaction() as transaction:
        transaction.add_bytes(b"content %d" % interruption.number)
        transaction.commit()


def test_an_interruption_at_any_line_leaves_no_staging_directory(tmp_path):
    store = Store.init(tmp_path / "store")
    calm = InterruptAt(0, ROOM)
    store_something(store, calm)
    assert calm.lines > 100
    for number in range(1, calm.lines + 1):
        with pytest.raises(KeyboardInterrupt):
            store_something(store, interruption := InterruptAt(number, ROOM))
        assert list((tmp_path / "store" / layout.STAGING).iterdir()) == [], interruption.where
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
