"""A transaction: what a build adds to a store, all staged first, then published in a safe order.

Order of a commit: one sync of all staged files; objects and images get their names; one sync of the touched
directories; documents and references get their names; one sync of their directories. So a reference never
names what a power cut could take away.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from cfsbuild.errors import InputError, StoreError
from cfsbuild.fsverity import digest as fsverity
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store import contents, layout, publish, sources, verity
from cfsbuild.store.durability import WRITEBACK_BYTES, Durability, begin_writeback
from cfsbuild.store.gate import Gate
from cfsbuild.store.objects import trash_batches
from cfsbuild.store.results import NodeResult, encode_result
from cfsbuild.store.staging import Staging
from cfsbuild.store.syscalls import new_file, open_file, write_file
from cfsbuild.tree.layer import Layer, Tree, document_digest, encode_layer, encode_tree

if TYPE_CHECKING:
    from cfsbuild.store.store import Store

_SMALL = 1 << 20
"""Files up to this many bytes are read at once, and not written when their object is there already."""


_PATIENCE = 1.0
"""Seconds that threads which still add are given when a transaction ends."""


class Transaction:
    """Adds to a store; made by `Store.transaction`, which see.

    An `ObjectSink`. May be used by several threads.

    Every method raises `StoreError` for what the file system refuses.
    """

    def __init__(self, store: Store, staging: Staging, durability: Durability) -> None:
        self.algorithm: Algorithm = store.algorithm
        self.path = store.path
        self.objects_fd = store.objects.fd
        """The descriptor of `objects/`, to look for what need not be written again."""
        self.staging_fd = staging.fd
        """The descriptor of the staging directory: objects go to `xx/rest` below it, mode 0444."""
        self._store = store
        self._staging = staging
        self.durability = durability
        """With `EACH`, whoever writes to `staging_fd` syncs every file."""
        self._sync = durability is Durability.EACH
        self.gate = Gate()
        """What keeps a commit away while objects are written: `with transaction.gate.adding():`."""
        self._lock = threading.Lock()
        self._trusted: set[bytes] = set()
        self._intact: set[bytes] = set()
        """Those of the trusted objects that were read."""
        self._trash = bool(trash_batches(store.fd))
        self._pending = publish.Pending()
        self._replace: set[bytes] = set()
        """Objects that are in the store but wrong: ours take their place."""
        self._images: set[bytes] = set()

    def add_bytes(self, data: bytes | bytearray, /) -> bytes:
        """Take `data` in as an object; return its raw digest."""
        digest = fsverity.digest_bytes(data, self.algorithm)
        self._add(digest, data)
        return digest

    def add_fd(self, fd: int, /) -> tuple[bytes, int]:
        """Take in everything from `fd`'s position to its end; return (raw digest, size in bytes).

        The digest is that of the bytes that were written to the store. Raises `InputError` when `fd` cannot
        be read.
        """
        head = sources.read(fd, _SMALL + 1)
        if len(head) <= _SMALL:
            return self.add_bytes(head), len(head)
        with self._store.errors("write to"), self.gate.adding():
            return self._add_stream(fd, head)

    def known(self, digest: bytes, size: int) -> bool:
        """Say whether an object need not be written: it is staged, or it is in the store and may be trusted.

        One that is there but wrong is replaced by the one that the caller then adds. While the transaction
        is open no gc removes what this found.
        """
        if digest in self._pending.objects or digest in self._trusted:
            return True
        objects = self._store.objects
        with self._store.errors("read"):
            status = objects.find(digest) if self._trash else objects.status(digest)
            if status is None:
                return False
            if objects.trusts(digest, status, size):
                self._trusted.add(digest)
                return True
        with self._lock:
            self._replace.add(digest)
        return False

    def _holds(self, digest: bytes, size: int) -> bool:
        """Say whether an object whose content is at hand need not be written: then theirs is read, once."""
        if not self.known(digest, size):
            return False
        if digest in self._pending.objects or digest in self._intact:
            return True
        with self._store.errors("read"):
            intact = self._store.objects.matches(digest)
        with self._lock:
            (self._intact if intact else self._replace).add(digest)
        return intact

    def replace(self, data: bytes) -> bytes:
        """Take `data` in as an object that takes the place of one that is there; return its raw digest."""
        digest = fsverity.digest_bytes(data, self.algorithm)
        with self._lock:
            self._replace.add(digest)
        self._stage(digest, data)
        return digest

    def adopt(self, digests: Iterable[bytes]) -> None:
        """Take responsibility for objects that were written, completely, to `staging_fd` by other means."""
        digests = [layout.check_digest(digest, self.algorithm) for digest in digests]
        if self._store.requires_verity:
            with self._store.errors("enable fs-verity in"):
                for digest in digests:
                    verity.seal(self.staging_fd, layout.object_name(digest), digest, self.algorithm)
        with self._lock:
            self._pending.objects.update(digests)

    def written(self, size: int) -> None:
        """Take note that `size` bytes were staged, and that other work comes before more or the commit."""
        if self.durability is Durability.BATCH and size >= WRITEBACK_BYTES:
            with self._store.errors("write to"):
                begin_writeback(self._store.fd)

    def put_layer(self, layer: Layer) -> str:
        """Store a layer document; return its name."""
        return self._put_document(layout.LAYERS, encode_layer(layer))

    def put_layer_document(self, data: bytes | bytearray) -> str:
        """Store the bytes of a layer document, as `encode_layer` makes them; return its name."""
        return self._put_document(layout.LAYERS, data)

    def put_tree(self, tree: Tree) -> str:
        """Store a tree document; return its name, which equals `tree_digest(tree)`."""
        return self._put_document(layout.TREES, encode_tree(tree))

    def put_result(self, result: NodeResult) -> None:
        """Record what a node gave. Its layer must be in the store or in this transaction."""
        layout.check_document(result.key)
        layout.check_document(result.layer)
        self._stage_file(layout.NODES, result.key, encode_result(result))

    def put_image(self, data: bytes, objects: Iterable[bytes] | None = None) -> bytes:
        """Store an image and list it as one; return its raw digest.

        `objects` are the digests that the image needs; when given, gc and info need not read the image.
        """
        return self._put_image(data, None if objects is None else contents.encode_contents(objects))

    def put_image_like(
        self, base: bytes, data: bytes | bytearray, added: Collection[bytes], removed: Collection[bytes]
    ) -> bytes | None:
        """Store an image that needs what the stored image `base` needs, and `added`, but not `removed`.

        Returns its raw digest; None, and stores nothing, when there is no good list of what `base` needs.
        """
        listed = contents.contents_document(self._store, base)
        if listed is None:
            return None
        try:
            listed = contents.patch_contents(listed, self.algorithm, added, removed)
        except InputError:
            return None
        return self._put_image(data, listed)

    def _put_image(self, data: bytes | bytearray, listed: bytes | None) -> bytes:
        digest = self.add_bytes(data)
        if listed is not None:
            self._stage_file(layout.CONTENTS, digest.hex(), listed)
        with self._lock:
            self._pending.images.add(digest)
            self._images.add(digest)
        return digest

    def set_ref(self, name: str, digest: bytes) -> None:
        """Let `name` stand for an image of the store or of this transaction, instead of what it stood for.

        Raises `UsageError` for a name that is not allowed, `StoreError` when there is no such image.
        """
        layout.check_ref(name)
        layout.check_digest(digest, self.algorithm)
        if digest not in self._images and not self._store.has_image(digest):
            raise StoreError(f"{name}: there is no image {digest.hex()} in the store", reason="missing-image")
        with self._lock:
            self._pending.refs[name] = digest

    def has(self, digest: bytes) -> bool:
        """Say whether an object is in this transaction or in the store."""
        return digest in self._pending.objects or self._store.has(digest)

    def open_object(self, digest: bytes) -> int:
        """Return a read-only descriptor of an object of this transaction or of the store."""
        if digest in self._pending.objects:
            name = layout.object_name(digest)
            with self._store.errors("read"), self.gate.adding():
                if digest in self._pending.objects:
                    return open_file(name, dir_fd=self.staging_fd)
        return self._store.open_object(digest)

    def read_object(self, digest: bytes) -> bytes:
        """Return the content of an object of this transaction or of the store; see `Store.read_object`."""
        if digest in self._pending.objects:
            with os.fdopen(self.open_object(digest), "rb") as file:
                return file.read()
        return self._store.read_object(digest)

    def commit(self) -> None:
        """Publish everything that was added since the last commit, durably. The transaction stays open."""
        with self._store.errors("write to"), self.gate.committing():
            pending, self._pending = self._pending, publish.Pending()
            pending.replace = self._replace & pending.objects
            try:
                publish.publish(self._store.fd, self.objects_fd, self._staging, pending, self.durability)
            except BaseException:
                self._pending = pending
                raise
            self._trusted |= pending.objects
            self._intact |= pending.objects

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Discard what was not committed."""
        try:
            empty = self.gate.close(patience=_PATIENCE)
        finally:
            if self.gate.others():
                self._staging.leave()
        if not empty:
            return
        try:
            self._staging.close()
        except OSError as failure:
            # The next transaction of anybody removes it; an error that is on its way says more.
            if error is None:
                raise StoreError(
                    f"cannot clean up in store {self._store.path}", details=str(failure)
                ) from failure

    def _add(self, digest: bytes, data: bytes | bytearray) -> None:
        if not self._holds(digest, len(data)):
            self._stage(digest, data)

    def _stage(self, digest: bytes, data: bytes | bytearray) -> None:
        with self._store.errors("write to"), self.gate.adding():
            self._staging.make_shard(digest.hex()[:2])
            name = layout.object_name(digest)
            try:
                write_file(self.staging_fd, name, data, sync=self._sync)
            except FileExistsError:
                # Another thread is writing the same object, or failed to: only complete files are published.
                other = self._staging.new_name()
                write_file(self.staging_fd, other, data, sync=self._sync)
                os.rename(other, name, src_dir_fd=self.staging_fd, dst_dir_fd=self.staging_fd)
            self.adopt((digest,))

    def _add_stream(self, fd: int, head: bytes) -> tuple[bytes, int]:
        temporary = self._staging.new_name()
        try:
            with new_file(self.staging_fd, temporary, sync=self._sync) as target:
                digest, size = sources.copy(fd, head, target, self.algorithm)
            if not self._holds(digest, size):
                self._staging.make_shard(digest.hex()[:2])
                name = layout.object_name(digest)
                os.rename(temporary, name, src_dir_fd=self.staging_fd, dst_dir_fd=self.staging_fd)
                self.adopt((digest,))
                return digest, size
        except BaseException:
            # What cannot be removed now is removed with the directory.
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self.staging_fd)
            raise
        os.unlink(temporary, dir_fd=self.staging_fd)
        return digest, size

    def _put_document(self, directory: str, data: bytes | bytearray) -> str:
        name = document_digest(data)
        self._stage_file(directory, name, data)
        return name

    def _stage_file(self, directory: str, name: str, data: bytes | bytearray) -> None:
        staged = self._staging.new_name()
        with self._store.errors("write to"), self.gate.adding():
            write_file(self.staging_fd, staged, data, sync=self._sync)
            with self._lock:
                self._pending.documents[(directory, name)] = staged
