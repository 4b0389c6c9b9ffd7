"""The command line in one thread: strace counts the system calls of each thread for itself."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from cfsbuild.build import execute
from cfsbuild.build.workers import Completion
from cfsbuild.cli.main import main


class Inline:
    """Runs each piece of work when its completion is asked for."""

    def __init__(self, jobs: int) -> None:
        del jobs
        self._work: deque[tuple[str, Callable[[], Any]]] = deque()

    def submit(self, token: str, work: Callable[[], Any], /) -> None:
        self._work.append((token, work))

    def next(self) -> Completion:
        token, work = self._work.popleft()
        try:
            return Completion(token, work())
        except Exception as error:  # noqa: BLE001 (handed on, as threads do)
            return Completion(token, error=error)

    def close(self, *, patience: float) -> bool:
        del patience
        self._work.clear()
        return True


if __name__ == "__main__":
    execute.Workers = Inline
    sys.exit(main())
