"""The store: objects, node results, images and references, shared by all images (`docs/formats/store.md`)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from cfsbuild.errors import StoreError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store import (
    access,
    documents,
    images,
    layout,
    leases,
    locks,
    staging,
)
from cfsbuild.store.create import check_place, create
from cfsbuild.store.durability import Durability
from cfsbuild.store.faults import StoreErrors
from cfsbuild.store.images import ImageRef
from cfsbuild.store.meta import check_algorithm
from cfsbuild.store.objects import Objects
from cfsbuild.store.results import NodeResult
from cfsbuild.store.transaction import Transaction
from cfsbuild.tree.layer import Layer, Tree, objects_of


class Store:
    """An open store. Use as a context manager, or call `close`; an open store holds no lock.

    Methods raise `StoreError` for what the file system refuses, `UsageError` for names that cannot be.
    """

    def __init__(self, path: Path, opened: access.Opened) -> None:
        self.path = path
        self.fd = opened.fd
        self.algorithm: Algorithm = opened.meta.digest_algorithm
        self.owners = opened.owners
        self.read_only_reason = opened.read_only_reason
        """Why the store cannot be written; empty when it can."""
        self.requires_verity, self.no_verity_reason = opened.verity
        self.objects = Objects(opened.fd, self.algorithm, opened.owners, shared=opened.shared)
        self._layers: dict[str, Layer] = {}

    @staticmethod
    def init(path: Path, algorithm: Algorithm = Algorithm.SHA256, *, shared: bool = False) -> Store:
        """Make a store at `path`, or complete and open the one that is there.

        The directory gets mode 0700; with `shared`, 0777 less the umask. When its file system has fs-verity,
        every object will have it. Raises `StoreError` when something else is there, `UsageError` when a store
        of another algorithm is.
        """
        with StoreErrors("make", str(path)):
            create(path, algorithm, shared=shared)
        store = Store.open(path, shared=shared)
        check_algorithm(store.algorithm, algorithm, str(path))
        return store

    @staticmethod
    def check_place(path: Path) -> None:
        """Raise `StoreError` when what is at `path` keeps `init` from making a store; change nothing."""
        with StoreErrors("make", str(path)):
            check_place(path)

    @staticmethod
    def open(
        path: Path,
        *,
        read_only: bool = False,
        algorithm: Algorithm | None = None,
        trusted_uids: Collection[int] = (),
        shared: bool = False,
    ) -> Store:
        """Open the store at `path`, for reading only when it can or shall not be written.

        `algorithm` is what the caller needs. `trusted_uids` are users besides this one and root whose results
        and objects are taken at their word; `shared` permits a directory that others can write to.
        Raises `StoreError` when there is no usable store, `UsageError` for another algorithm.
        """
        with StoreErrors("open", str(path)):
            opened = access.open_store(path, read_only=read_only, trusted_uids=trusted_uids, shared=shared)
            try:
                store = Store(path, opened)
            except BaseException:
                os.close(opened.fd)
                raise
        if algorithm is not None and algorithm is not store.algorithm:
            store.close()
            check_algorithm(store.algorithm, algorithm, str(path))
        return store

    def close(self) -> None:
        """Give up the descriptors."""
        if self.fd >= 0:
            self.objects.close()
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def read_only(self) -> bool:
        """Say whether the store can only be read."""
        return bool(self.read_only_reason)

    @property
    def objects_path(self) -> Path:
        """Return what an image's payload paths are relative to: `basedir` of mount.composefs."""
        return self.path / layout.OBJECTS

    @property
    def state_path(self) -> Path:
        """Return this user's directory for caches about local files; it may not exist yet."""
        return self.path / layout.STATE / str(os.geteuid())

    def errors(self, doing: str) -> StoreErrors:
        """Return a block in which an `OSError` becomes a `StoreError`, "cannot DOING store PATH"."""
        return StoreErrors(doing, str(self.path))

    def check_writable(self) -> None:
        """Raise `StoreError` when the store can only be read."""
        if self.read_only_reason:
            raise StoreError(
                f"store {self.path} cannot be written: {self.read_only_reason}",
                resolution="use a store of your own: --store, or CFSBUILD_STORE",
                reason="read-only",
            )

    @contextlib.contextmanager
    def transaction(self, *, durability: Durability = Durability.BATCH) -> Iterator[Transaction]:
        """Add to the store in this block; what is not committed when it ends is discarded.

        No gc, ours or that of composefs-rs, removes anything while the block runs.
        """
        self.check_writable()
        with contextlib.ExitStack() as stack:
            with self.errors("write to"):
                access.make_rooms(self.fd)
                stack.enter_context(locks.shared(self.fd))
                staging.remove_leftovers(self.fd)
                staged = stack.enter_context(staging.Staging(self.fd))
                staged.make()
            # A block of its own: whatever interrupts how it ends, the stack removes the directory.
            with Transaction(self, staged, durability) as transaction:
                yield transaction

    def has(self, digest: bytes) -> bool:
        """Say whether an object is in the store. Outside a transaction or lease that may change any time."""
        layout.check_digest(digest, self.algorithm)
        with self.errors("read"):
            return self.objects.find(digest) is not None

    def missing(self, digests: Iterable[bytes]) -> list[bytes]:
        """Return those of `digests` that are not in the store, each once."""
        with self.errors("read"):
            return self.objects.missing(digests)

    def open_object(self, digest: bytes) -> int:
        """Return a read-only descriptor of an object, not verified; the caller closes it."""
        layout.check_digest(digest, self.algorithm)
        with self.errors("read"):
            return self.objects.open(digest)

    def read_object(self, digest: bytes) -> bytes:
        """Return an object's verified content; raises `VerificationError` when it is damaged."""
        layout.check_digest(digest, self.algorithm)
        with self.errors("read"):
            return self.objects.read(digest)

    def read_object_to_change(self, digest: bytes) -> bytearray:
        """Do what `read_object` does, for who changes the content in place."""
        layout.check_digest(digest, self.algorithm)
        with self.errors("read"):
            return self.objects.read_to_change(digest)

    def layer(self, name: str) -> Layer | None:
        """Return a layer document; None when it is absent or damaged."""
        if name not in self._layers:
            layer = documents.read_layer(self.fd, name)
            if layer is None:
                return None
            self._layers[name] = layer
        return self._layers[name]

    def layer_document(self, name: str) -> bytearray | None:
        """Return the bytes of a layer document; None when it is absent or damaged."""
        return documents.read_layer_document(self.fd, name)

    def tree(self, name: str) -> Tree | None:
        """Return a tree document; None when it is absent or damaged."""
        return documents.read_tree(self.fd, name)

    def result(self, key: str, *, lease: leases.Lease | None = None) -> NodeResult | None:
        """Return what was recorded under a node's key, if all that it needs is there; else None.

        It is a miss when the layer or one of its objects is gone, or when a user who is not trusted wrote it.
        Inside a transaction what was found stays; elsewhere pass a `lease` that protects it before it is
        looked at.
        """
        result = documents.read_result(self.fd, key, self.owners, use=not self.read_only)
        if result is None:
            return None
        layer = self.layer(result.layer)
        if layer is None:
            return None
        needed = objects_of(layer.entries)
        with self.errors("read"):
            if lease is not None:
                lease.protect(needed, results=(key,))
            return None if self.objects.missing(needed) else result

    def has_image(self, digest: bytes) -> bool:
        """Say whether an image of this digest is listed in the store, and there."""
        layout.check_digest(digest, self.algorithm)
        with self.errors("read"):
            return images.is_image(self.fd, digest) and self.objects.find(digest) is not None

    def image(self, name: str) -> ImageRef | None:
        """Return the image that a reference or a digest (lower-case hex) names; None when there is none."""
        digest = layout.parse_digest(name, self.algorithm)
        found_by = ""
        if digest is None:
            digest, found_by = self.resolve(name), name
        if digest is None or not self.has_image(digest):
            return None
        with self.errors("read"):
            status = self.objects.find(digest)
        return None if status is None else ImageRef(digest=digest, size=status.st_size, name=found_by)

    def read_image(self, name: str) -> bytes:
        """Return the verified bytes of the image that a reference or a digest names.

        Raises `StoreError` when there is none, `VerificationError` when it is damaged.
        """
        image = self.image(name)
        if image is None:
            raise StoreError(
                f"there is no image {name!r} in the store {self.path}",
                resolution=f"images there: {', '.join(sorted(self.refs())[:20]) or 'none'}",
                reason="missing-image",
            )
        return self.read_object(image.digest)

    def images(self) -> list[bytes]:
        """Return the raw digests of all images, ascending."""
        with self.errors("read"):
            return images.list_images(self.fd, self.algorithm)

    def refs(self) -> dict[str, bytes]:
        """Return all references and the raw digests of the images that they stand for."""
        with self.errors("read"):
            return images.list_refs(self.fd, self.algorithm)

    def resolve(self, name: str) -> bytes | None:
        """Return the raw digest that a reference stands for; None when there is none of that name."""
        with self.errors("read"):
            return images.resolve(self.fd, name, self.algorithm)

    def remove_ref(self, name: str) -> bool:
        """Remove a reference, durably; False when there is none. The image stays until gc finds it unused."""
        self.check_writable()
        with self.errors("write to"):
            access.make_rooms(self.fd)
            with locks.shared(self.fd):
                return images.remove_ref(self.fd, name)

    def lease(self, purpose: str, *, ttl: int = 0) -> leases.Lease:
        """Return a new lease, to be released; see `leases`.

        With `ttl` seconds it may outlive this process.
        """
        self.check_writable()
        with self.errors("write to"):
            access.make_rooms(self.fd)
            return leases.Lease(self.fd, purpose, ttl=ttl)

    def release_lease(self, name: str) -> bool:
        """Give up a lease that was detached from its process; False when it is gone already."""
        self.check_writable()
        if not layout.is_hex(name, 32):
            return False
        with self.errors("write to"):
            return leases.release_named(self.fd, name)
