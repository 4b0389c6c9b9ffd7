"""An interruption before a chosen line: for tests that try every line."""

from __future__ import annotations

import sys
from types import FrameType, TracebackType
from typing import Any


class InterruptAt:
    """Raises `KeyboardInterrupt`, once, before the `number`th line that runs, in the block, of code in `files`.

    `files` are beginnings of their paths. `lines` counts what ran of them, `where` says where it was raised.
    """

    def __init__(self, number: int, *files: str) -> None:
        self.number = number
        self.lines = 0
        self.where = ("", 0)
        self._files = files
        self._before: Any = None

    def __enter__(self) -> InterruptAt:
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(self._files):
            return None
        if event == "line":
            self.lines += 1
            if self.lines == self.number:
                self.where = (frame.f_code.co_filename, frame.f_lineno)
                raise KeyboardInterrupt
        return self._trace
