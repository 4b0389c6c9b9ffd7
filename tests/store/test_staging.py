"""An interruption between any two lines of a transaction leaves no staging directory."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import cfsbuild.store
from cfsbuild.store import layout
from cfsbuild.store.store import Store

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
