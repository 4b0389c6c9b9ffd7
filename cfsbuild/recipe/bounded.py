"""Running code that other people's templates drive, within limits that the kernel keeps.

A template can loop, multiply and recurse; no list of forbidden operations is complete. So rendering that does
more than fill in variables runs in a forked child whose memory and processor time are limited. A fork costs
about a millisecond, and jinja2 is then imported in the child only.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn, TypeVar

import msgspec

from cfsbuild.errors import Origin, Problem, RecipeError

Result = TypeVar("Result")
Progress = Callable[[Origin], None]
"""Told where the template stands that is rendered next."""

MEMORY_BYTES = 512 * 2**20
"""Address space that rendering may use beyond what the process has already."""

CPU_SECONDS = 5
WALL_SECONDS = 20.0
"""Ends a child that sleeps or that a loaded machine never lets run."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HEADER = 9
_RESULT, _PLACE, _BUG = b"R", b"P", b"B"


def run(work: Callable[[Progress], Result], result_type: type[Result]) -> Result:
    """Return `work(progress)` as computed in a child process; the result must be plain data.

    Raises `RecipeError` at the last place that was told to `progress` if the child exceeded a limit.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    # A signal in the child must not run the parent's handlers, so none arrives before the child has its own.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        child = _fork()
        if child == 0:
            _child(work, writer, mask)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(writer)
    finished = False
    try:
        with os.fdopen(reader, "rb", buffering=0) as stream:
            frames = _Frames(stream.fileno())
            finished = frames.read_all(time.monotonic() + WALL_SECONDS)
    finally:
        if not finished:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if frames.bug:
        raise RuntimeError(f"rendering failed in the child process:\n{frames.bug}")
    if frames.result is None:
        raise _exceeded(frames.place)
    return msgspec.msgpack.decode(frames.result, type=result_type)


def _exceeded(place: Origin | None) -> RecipeError:
    details = f"the limits are {CPU_SECONDS} s of processor time and {MEMORY_BYTES >> 20} MiB of memory"
    return RecipeError((Problem("a template takes too much time or memory", details, "simplify it", place),))


def _fork() -> int:
    with warnings.catch_warnings():
        # Python warns of forking when there are threads: in the child their locks stay taken. The child needs
        # none of them, and the parent does not wait for it for ever.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _child(work: Callable[[Progress], Result], writer: int, mask: Iterable[int]) -> NoReturn:
    """Do the work, write it to `writer` and end the process, whatever happens."""
    status = 1
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _limit()

        def progress(origin: Origin) -> None:
            _write(writer, _PLACE, msgspec.msgpack.encode(origin))

        _write(writer, _RESULT, msgspec.msgpack.encode(work(progress)))
        status = 0
    except MemoryError:
        status = 2  # no result: the parent says where
    except BaseException:  # noqa: BLE001 (nothing may leave this function: it would run the parent's code twice)
        _write(writer, _BUG, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _limit() -> None:
    with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123
        used = int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    for limit, value in ((resource.RLIMIT_AS, used + MEMORY_BYTES), (resource.RLIMIT_CPU, CPU_SECONDS)):
        hard = resource.getrlimit(limit)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # No template writes a file; should one find a way out of the sandbox, the kernel still says no.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _write(descriptor: int, kind: bytes, payload: bytes) -> None:
    data = memoryview(kind + len(payload).to_bytes(8, "little") + payload)
    while data:
        data = data[os.write(descriptor, data) :]


class _Frames:
    """What a child has written."""

    def __init__(self, descriptor: int) -> None:
        self.result: bytes | None = None
        self.place: Origin | None = None
        self.bug = ""
        self._descriptor = descriptor
        self._buffer = bytearray()

    def read_all(self, deadline: float) -> bool:
        """Read until the child closes its end; False if it has not done so by `deadline` (monotonic)."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                return False
            data = os.read(self._descriptor, 1 << 20)
            if not data:
                return True
            self._buffer += data
            self._take()

    def _take(self) -> None:
        while len(self._buffer) >= _HEADER:
            end = _HEADER + int.from_bytes(self._buffer[1:_HEADER], "little")
            if len(self._buffer) < end:
                return
            kind, payload = bytes(self._buffer[:1]), bytes(self._buffer[_HEADER:end])
            del self._buffer[:end]
            if kind == _RESULT:
                self.result = payload
            elif kind == _PLACE:
                self.place = msgspec.msgpack.decode(payload, type=Origin)
            else:
                self.bug = payload.decode("utf-8", "replace")
