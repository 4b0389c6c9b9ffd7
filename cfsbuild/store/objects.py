"""The objects of a store: finding, opening and checking them by digest."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator

from cfsbuild.errors import StoreError, VerificationError
from cfsbuild.fsverity import digest as fsverity
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store import layout, syscalls, verity

_LIST_FROM = 16
"""From this many digests in one shard on, listing the shard is cheaper than asking for each."""


class Objects:
    """Object files below `objects/`.

    `owners` are the user ids whose objects are taken at their name; those of other users are hashed before
    use. Without `shared` there can be none of other users.
    """

    def __init__(self, store_fd: int, algorithm: Algorithm, owners: Collection[int], *, shared: bool) -> None:
        self._store_fd = store_fd
        self.fd = syscalls.open_directory(layout.OBJECTS, dir_fd=store_fd)
        self.algorithm = algorithm
        self._owners = owners
        self._shared = shared
        self._checked: set[bytes] = set()

    def close(self) -> None:
        """Give up the descriptor."""
        os.close(self.fd)

    def status(self, digest: bytes) -> os.stat_result | None:
        """Return the status of an object's file; None when it is not in `objects/`. Raises `OSError`."""
        try:
            return os.stat(layout.object_name(digest), dir_fd=self.fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def find(self, digest: bytes) -> os.stat_result | None:
        """Return the status of an object's file, fetched back from gc's trash if need be.

        Raises `OSError`.
        """
        status = self.status(digest)
        if status is None and self.recover(digest):
            status = self.status(digest)
        return status

    def recover(self, digest: bytes) -> bool:
        """Rename an object back from gc's trash; False when it is not there or the store is read-only."""
        name = digest.hex()
        for batch in trash_batches(self._store_fd):
            source = f"{layout.TRASH}/{batch}/{name}"
            try:
                os.stat(source, dir_fd=self._store_fd, follow_symlinks=False)
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name[:2], dir_fd=self.fd)
                syscalls.rename_new(self._store_fd, source, self.fd, layout.object_name(digest))
            except FileExistsError:
                return True
            except OSError:
                # Not in this batch, purged meanwhile, or not ours to move: then the object is absent.
                continue
            return True
        return False

    def trusts(self, digest: bytes, status: os.stat_result, size: int | None = None) -> bool:
        """Say whether an object that is there may be used. Raises `OSError`.

        It must be a regular file of `size` bytes, and be from a trusted user or have the right content.
        """
        if not stat.S_ISREG(status.st_mode) or (size is not None and status.st_size != size):
            return False
        return status.st_uid in self._owners or self.matches(digest)

    def matches(self, digest: bytes) -> bool:
        """Hash an object's content, or ask the kernel that enforces it, and compare. Raises `OSError`."""
        fd = syscalls.open_file(layout.object_name(digest), dir_fd=self.fd)
        try:
            measured = verity.measure(fd)
            if measured is not None and measured.algorithm is self.algorithm:
                return measured.digest == digest
            return fsverity.digest_fd(fd, self.algorithm)[0] == digest
        finally:
            os.close(fd)

    def open(self, digest: bytes) -> int:
        """Return a read-only descriptor of an object. Raises `StoreError` when it is absent, or `OSError`."""
        status = self.find(digest)
        if status is None or not stat.S_ISREG(status.st_mode):
            raise StoreError(
                f"object {digest.hex()} is not in the store",
                resolution="run cfsbuild store fsck, or build the image again",
                reason="missing-object",
            )
        return syscalls.open_file(layout.object_name(digest), dir_fd=self.fd)

    def read(self, digest: bytes) -> bytes:
        """Return an object's content, verified against its name.

        Raises `StoreError` when it is absent, `VerificationError` when it is damaged, or `OSError`.
        """
        with os.fdopen(self.open(digest), "rb") as file:
            data = file.read()
        self._verify(digest, data)
        return data

    def read_to_change(self, digest: bytes) -> bytearray:
        """Do what `read` does, for who changes the content in place."""
        fd = self.open(digest)
        try:
            data = syscalls.read_to_change(fd)
        finally:
            os.close(fd)
        self._verify(digest, data)
        return data

    def _verify(self, digest: bytes, data: bytes | bytearray) -> None:
        if fsverity.digest_bytes(data, self.algorithm) != digest:
            raise VerificationError(
                f"object {digest.hex()} is damaged",
                resolution="run cfsbuild store fsck --repair",
                reason="object-digest",
            )

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Return those of `digests` whose objects are not there, or not to be trusted, each once.

        Raises `OSError`.
        """
        wanted: dict[str, dict[bytes, None]] = {}
        for digest in digests:
            wanted.setdefault(digest[:1].hex(), {})[digest] = None
        absent = {digest for shard, group in wanted.items() for digest in self._absent(shard, group)}
        return [digest for group in wanted.values() for digest in group if digest in absent]

    def _absent(self, shard: str, digests: Collection[bytes]) -> list[bytes]:
        """Return those of `digests`, all of one shard, that are nowhere or not to be trusted."""
        if self._shared:
            return [digest for digest in digests if not self._usable(digest)]
        if len(digests) < _LIST_FROM:
            return [digest for digest in digests if self.find(digest) is None]
        present = frozenset(self.shard(shard))
        return [d for d in digests if d.hex()[2:] not in present and not self.recover(d)]

    def _usable(self, digest: bytes) -> bool:
        """Say whether an object is there and may be used; one that was good once is only looked for again."""
        status = self.find(digest)
        if status is None:
            return False
        if digest not in self._checked:
            if not self.trusts(digest, status):
                return False
            self._checked.add(digest)
        return True

    def shards(self) -> list[str]:
        """Return the names of all entries of `objects/`, sorted; strays too. Raises `OSError`."""
        return syscalls.names_in(".", dir_fd=self.fd)

    def shard(self, shard: str) -> list[str]:
        """Return the names of all entries of `objects/shard`, sorted; none when it is absent.

        Raises `OSError`.
        """
        try:
            return syscalls.names_in(shard, dir_fd=self.fd)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def all(self) -> Iterator[bytes]:
        """Yield the digest of every object, ascending; strays are passed over. Raises `OSError`."""
        for shard in self.shards():
            if layout.is_shard(shard):
                for rest in self.shard(shard):
                    digest = layout.digest_of(shard, rest, self.algorithm)
                    if digest is not None:
                        yield digest


def trash_batches(store_fd: int) -> list[str]:
    """Return the names of gc's trash directories, newest first; none when there is no trash.

    Raises `OSError`.
    """
    try:
        names = syscalls.names_in(layout.TRASH, dir_fd=store_fd)
    except FileNotFoundError:
        return []
    return [name for name in reversed(names) if name.startswith(layout.GC_TRASH)]
