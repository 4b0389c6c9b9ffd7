"""From header blocks to members: extension headers applied, data bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from cfsbuild import limits
from cfsbuild.errors import InputError
from cfsbuild.nodes.tar import faults, pax, sparse
from cfsbuild.nodes.tar.attributes import NOTHING, Extension, check_global, interpret
from cfsbuild.nodes.tar.header import ZERO_BLOCK, Header, parse_header
from cfsbuild.nodes.tar.numbers import NANOSECONDS, check_time
from cfsbuild.nodes.tar.pax import Records
from cfsbuild.nodes.tar.sparse import Extent
from cfsbuild.nodes.tar.stream import BLOCK, ByteStream
from cfsbuild.tree import paths
from cfsbuild.tree.inode import Xattrs

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
_V7_REGULAR = b"\0"
_CONTIGUOUS = b"7"
_OLD_SPARSE = b"S"
_VOLUME_LABEL = b"V"
_PAX = b"x"
_PAX_GLOBAL = b"g"
_LONG_NAME = b"L"
_LONG_LINK = b"K"
_EXTENSIONS = frozenset({_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK})
_PLAIN = frozenset({REGULAR, _V7_REGULAR, _CONTIGUOUS, _OLD_SPARSE})
_WITHOUT_DATA = frozenset({HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO, _VOLUME_LABEL})

ID_MAX = 2**32 - 2
"""The largest uid or gid; the next number means "none"."""

LONG_NAME_BYTES = 65536
GLOBAL_RECORDS = 100


class Member(msgspec.Struct, frozen=True, gc=False):
    """One member, before its names mean anything.

    `type` is one of REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO. `size` is the
    length of a regular file's content and `stored` the bytes of it in the archive, fewer if `extents` is set.
    """

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    stored: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Xattrs = ()
    has_text_acl: bool = False
    extents: list[Extent] | None = None


class TarReader:
    """The members of one archive, in order. A member's content is there until the next one is asked for."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._unread = 0
        self._last = b""
        self._global: dict[bytes, bytes] = {}
        self._global_extension = NOTHING
        self._pending: dict[bytes, bytes] = {}
        self._records: Records = []

    def __iter__(self) -> Iterator[Member]:
        """Yield all members; raises `InputError` unless two zero blocks and only zeros end the archive."""
        try:
            yield from self._members()
        except InputError as error:
            if self._last and not error.details:
                error.details = f"It comes after member {paths.show(self._last)}."
            raise

    def _members(self) -> Iterator[Member]:
        stream = self._stream
        headers = 0
        while (block := stream.take(BLOCK)) != ZERO_BLOCK:
            headers += 1
            if headers > limits.TREE_ENTRIES:
                raise faults.over_limit(f"more than {limits.TREE_ENTRIES} headers")
            header = parse_header(block)
            if header.type in _EXTENSIONS:
                self._extend(header)
                continue
            member = self._member(header, block)
            if header.type == _VOLUME_LABEL:
                continue
            self._unread = member.stored
            yield member
            self._last = member.name
            stream.skip(self._unread)
            stream.skip(-member.stored % BLOCK)
        if self._pending:
            raise faults.malformed(faults.EXTENSION, "its last extension header describes nothing")
        self._check_end()

    def content(self, member: Member) -> Iterator[bytes]:
        """Yield the stored bytes of the member that was yielded last."""
        self._unread = 0
        return self._stream.pieces(member.stored)

    def whole_content(self, member: Member) -> bytes:
        """Return the stored bytes of the member that was yielded last, when they are known to be few."""
        self._unread = 0
        return self._stream.take(member.stored)

    def _check_end(self) -> None:
        """Require a second zero block and nothing but zeros behind it."""
        if self._stream.take(BLOCK) != ZERO_BLOCK:
            raise faults.malformed(faults.TRAILING, "a single zero block stands among its members")
        for piece in self._stream.rest():
            if piece.strip(b"\0"):
                raise faults.malformed(
                    faults.TRAILING,
                    "something follows its end (two archives in one file are not read as one)",
                )

    def _extend(self, header: Header) -> None:
        """Take note of an extension header."""
        limit = pax.HEADER_BYTES if header.type in {_PAX, _PAX_GLOBAL} else LONG_NAME_BYTES
        if not 0 <= header.size <= limit:
            raise faults.over_limit(f"an extension header of {header.size} bytes, at most {limit} are read")
        data = self._stream.take_padded(header.size)
        if header.type == _PAX_GLOBAL:
            self._global.update(check_global(pax.parse_records(data)))
            if len(self._global) > GLOBAL_RECORDS:
                raise faults.over_limit(f"more than {GLOBAL_RECORDS} global pax records")
            self._global_extension = interpret(list(self._global.items()))
            return
        if header.type in self._pending:
            raise faults.malformed(faults.EXTENSION, "a member has two extension headers of one type")
        self._pending[header.type] = data
        if header.type == _PAX:
            self._records = pax.parse_records(data)

    def _member(self, header: Header, block: bytes) -> Member:
        """Return the member that `header` and the extension headers before it describe."""
        if not self._pending:
            return self._make(header, block, self._global_extension)
        extension = self._global_extension
        if _PAX in self._pending:
            extension = interpret([*self._global.items(), *self._records])
        path, link = _long(self._pending, _LONG_NAME), _long(self._pending, _LONG_LINK)
        if (path and extension.path not in {None, path}) or (link and extension.link not in {None, link}):
            raise faults.malformed(faults.EXTENSION, "a pax and a GNU extension header give different names")
        if path or link:
            extension = msgspec.structs.replace(
                extension, path=path or extension.path, link=link or extension.link
            )
        member = self._make(header, block, extension)
        self._pending = {}
        self._records = []
        return member

    def _make(self, header: Header, block: bytes, extension: Extension) -> Member:
        """Combine a header with what extends it."""
        name = header.name if extension.path is None else extension.path
        size = header.size if extension.size is None else extension.size
        uid = header.uid if extension.uid is None else extension.uid
        gid = header.gid if extension.gid is None else extension.gid
        kind, name = _resolve_type(header.type, name)
        if not (0 <= uid <= ID_MAX and 0 <= gid <= ID_MAX and 0 <= size <= limits.FILE_BYTES):
            raise faults.malformed(
                faults.NUMBER, f"uid, gid or size of {os.fsdecode(name)!r} is out of range"
            )
        if kind != REGULAR and size:
            # Readers disagree on whether data follows: one of them would take data for headers.
            raise faults.malformed(faults.TYPE, f"{os.fsdecode(name)!r} has data but is no regular file")
        device = (header.device_major, header.device_minor)
        if extension.device_major is not None and extension.device_minor is not None:
            device = (extension.device_major, extension.device_minor)
        mtime = header.mtime * NANOSECONDS if extension.mtime_ns is None else extension.mtime_ns
        member = Member(
            name,
            kind,
            header.mode & 0o7777,
            uid,
            gid,
            check_time(mtime),
            size,
            size,
            header.link if extension.link is None else extension.link,
            device,
            extension.xattrs,
            extension.has_text_acl,
        )
        if header.type == _OLD_SPARSE or extension.sparse:
            return self._make_sparse(member, header.type, block, extension)
        return member

    def _make_sparse(self, member: Member, kind: bytes, block: bytes, extension: Extension) -> Member:
        """Return `member` with its extents and its real size."""
        stored = member.stored
        if member.type != REGULAR or (kind == _OLD_SPARSE and extension.sparse):
            raise faults.malformed(faults.SPARSE, "something is sparse that is no regular file, or twice so")
        if kind == _OLD_SPARSE:
            size, extents = sparse.old_gnu(block, self._stream)
        elif extension.sparse == "0":
            size, extents = sparse.from_records(self._records)
        else:
            size, extents, map_bytes = sparse.from_data(self._records, self._stream)
            stored -= map_bytes
        if not 0 <= size <= limits.FILE_BYTES:
            raise faults.malformed(faults.SPARSE, "a sparse file's size is out of range")
        extents = sparse.check_extents(extents, real_size=size, stored=stored)
        return msgspec.structs.replace(member, size=size, stored=stored, extents=extents)


def _long(pending: dict[bytes, bytes], kind: bytes) -> bytes | None:
    """Return the name that a GNU long name header carries."""
    if kind not in pending:
        return None
    name = pending[kind].removesuffix(b"\0")
    if not name or b"\0" in name:
        raise faults.malformed(faults.NAME, "a GNU long name is empty or contains NUL")
    return name


def _resolve_type(kind: bytes, name: bytes) -> tuple[bytes, bytes]:
    """Return the member's type and its name without a trailing slash."""
    if kind not in _PLAIN and kind not in _WITHOUT_DATA:
        raise faults.refused(
            faults.TYPE,
            f"{os.fsdecode(name)!r} has the unknown member type {os.fsdecode(kind)!r}",
            resolution="Make an archive of one volume, with files, links, directories, devices and FIFOs.",
        )
    if not name.endswith(b"/"):
        return (REGULAR if kind in _PLAIN else kind), name
    if kind == _V7_REGULAR:
        return DIRECTORY, name
    if kind not in {DIRECTORY, _VOLUME_LABEL}:
        raise faults.malformed(faults.NAME, f"{os.fsdecode(name)!r} is named like a directory but is none")
    return kind, name
