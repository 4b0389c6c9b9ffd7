"""What the loader needs to know of an ELF file: which interpreter and libraries it names, and where to look.

Source: elf(5), ld.so(8), the System V ABI (chapters 4 and 5). Why not a library: docs/adr/0120.
"""

from __future__ import annotations

import os
import struct

import msgspec

from cfsbuild.errors import InputError

MAGIC = b"\x7fELF"

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 15, 29

_MOST_SEGMENTS = 4096
_MOST_TABLE_BYTES = 1 << 22
_MOST_STRING_BYTES = 1 << 24
_PATH_BYTES = 4096


class Elf(msgspec.Struct, frozen=True, kw_only=True):
    """An ELF file. `platform` is equal for files that can be loaded together: class, byte order, machine."""

    platform: tuple[int, int, int]
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()


class _Segment(msgspec.Struct, frozen=True):
    kind: int
    offset: int
    address: int
    size: int


def read_elf(fd: int) -> Elf | None:
    """Return what the file of `fd` says; None if it is no ELF file. Raises `InputError` for a damaged one."""
    head = os.pread(fd, 64, 0)
    if not head.startswith(MAGIC):
        return None
    if len(head) < 52 or head[4] not in {1, 2} or head[5] not in {1, 2}:
        raise _damaged("its header is cut off or of an unknown class")
    return _Reader(fd, head).read()


class _Reader:
    """Reads one file; every offset and size in it is checked before it is used."""

    def __init__(self, fd: int, head: bytes) -> None:
        self._fd = fd
        self._head = head
        self._wide = head[4] == 2
        self._order = "<" if head[5] == 1 else ">"

    def read(self) -> Elf:
        _, machine = self._unpack("HH", self._head[16:20])
        segments = self._segments()
        tags = self._dynamic(segments)
        strings = self._strings(segments, tags)

        def texts(tag: int) -> list[str]:
            return [_text(strings, value) for found, value in tags if found == tag]

        def directories(tag: int) -> tuple[str, ...]:
            return tuple(part for text in texts(tag) for part in text.split(":") if part)

        return Elf(
            platform=(self._head[4], self._head[5], machine),
            interpreter=self._interpreter(segments),
            needed=tuple(texts(_DT_NEEDED)),
            rpath=directories(_DT_RPATH),
            runpath=directories(_DT_RUNPATH),
        )

    def _unpack(self, form: str, data: bytes) -> tuple[int, ...]:
        if len(data) != struct.calcsize("=" + form):
            raise _damaged("it is cut off")
        return struct.unpack(self._order + form, data)

    def _at(self, offset: int, size: int, most: int) -> bytes:
        if size > most or offset >= 1 << 62:
            raise _damaged("a table in it is impossibly large")
        data = os.pread(self._fd, size, offset)
        if len(data) != size:
            raise _damaged("it is cut off")
        return data

    def _segments(self) -> list[_Segment]:
        if self._wide:
            (offset,) = self._unpack("Q", self._head[32:40])
            size, count = self._unpack("HH", self._head[54:58])
            form = "IIQQQQQQ"
        else:
            (offset,) = self._unpack("I", self._head[28:32])
            size, count = self._unpack("HH", self._head[42:46])
            form = "IIIIIIII"
        if count and (size != struct.calcsize("=" + form) or count > _MOST_SEGMENTS):
            raise _damaged("its program headers have an unknown form")
        table = self._at(offset, size * count, _MOST_TABLE_BYTES)
        rows = struct.iter_unpack(self._order + form, table) if count else ()
        if self._wide:
            return [_Segment(row[0], row[2], row[3], row[5]) for row in rows]
        return [_Segment(row[0], row[1], row[2], row[4]) for row in rows]

    def _interpreter(self, segments: list[_Segment]) -> str:
        found = next((one for one in segments if one.kind == _PT_INTERP), None)
        if found is None:
            return ""
        return _text(self._at(found.offset, found.size, _PATH_BYTES), 0)

    def _dynamic(self, segments: list[_Segment]) -> list[tuple[int, int]]:
        found = next((one for one in segments if one.kind == _PT_DYNAMIC), None)
        if found is None:
            return []
        form = "QQ" if self._wide else "II"
        step = struct.calcsize("=" + form)
        table = self._at(found.offset, found.size - found.size % step, _MOST_TABLE_BYTES)
        tags: list[tuple[int, int]] = []
        for tag, value in struct.iter_unpack(self._order + form, table):
            if tag == _DT_NULL:
                break
            tags.append((tag, value))
        return tags

    def _strings(self, segments: list[_Segment], tags: list[tuple[int, int]]) -> bytes:
        known = dict(tags)
        if _DT_STRTAB not in known:
            return b""
        address = known[_DT_STRTAB]
        for one in segments:
            if one.kind == _PT_LOAD and one.address <= address < one.address + one.size:
                offset = one.offset + address - one.address
                return self._at(offset, known.get(_DT_STRSZ, 0), _MOST_STRING_BYTES)
        raise _damaged("its names lie in no part of it that is loaded")


def _text(strings: bytes, start: int) -> str:
    end = strings.find(b"\0", start)
    if end < 0 or end - start > _PATH_BYTES:
        raise _damaged("a name in it has no end")
    return os.fsdecode(strings[start:end])


def _damaged(why: str) -> InputError:
    return InputError("ELF file is damaged", details=why, reason="elf")
