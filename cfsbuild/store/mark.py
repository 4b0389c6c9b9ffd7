"""What is in use: from references, leases and recent results down to objects, with the reason for each.

The policy (`docs/formats/store.md`): an image lives while a reference or a lease names it, or while it is
younger than the keep age; a node result while a lease names it or it was used within the keep age, and its
layer with it; a tree while it is younger. An object lives while any of these needs it, or a lease names it.
"""

from __future__ import annotations

import os
import time

from cfsbuild.errors import InputError, StoreError, VerificationError
from cfsbuild.store import documents, images, layout, leases
from cfsbuild.store.contents import image_objects
from cfsbuild.store.store import Store
from cfsbuild.tree.layer import objects_of


class Marks:
    """What is in use, each with the first reason found."""

    def __init__(self) -> None:
        self.objects: dict[bytes, str] = {}
        self.images: dict[bytes, str] = {}
        self.results: dict[str, str] = {}
        self.layers: dict[str, str] = {}
        self.trees: dict[str, str] = {}


class Marker:
    """Marks a store, again and again if need be: what a document or image needs is read once."""

    def __init__(self, store: Store, *, keep_age: float) -> None:
        self._store = store
        self._keep_age = keep_age
        self._of_image: dict[bytes, frozenset[bytes]] = {}
        self._of_document: dict[tuple[str, str], set[bytes] | None] = {}

    def mark(self) -> Marks:
        """Return what is in use now.

        Raises `StoreError` when an image that is in use cannot be read: then nobody knows what it needs.
        """
        marks = Marks()
        store = self._store
        for name, digest in store.refs().items():
            self._mark_image(marks, digest, f"reference {name}")
        held = leases.living(store.fd, store.algorithm, remove_dead=False)
        for lease in held:
            why = f"lease {lease.name[:12]} ({lease.header.purpose})"
            for digest in lease.objects:
                marks.objects.setdefault(digest, why)
                if digest in self._of_image or images.is_image(store.fd, digest):
                    self._mark_image(marks, digest, why)
        for digest in store.images():
            if digest not in marks.images and self._young(layout.IMAGES, digest.hex()):
                self._mark_image(marks, digest, "an image younger than the keep age")
        self._mark_results(marks, {key for lease in held for key in lease.results})
        for name in documents.list_documents(store.fd, layout.TREES):
            if layout.is_hex(name, 64) and self._young(layout.TREES, name):
                self._mark_tree(marks, name)
        return marks

    def _mark_image(self, marks: Marks, digest: bytes, why: str) -> None:
        if digest in marks.images:
            return
        marks.images[digest] = why
        marks.objects.setdefault(digest, why)
        below = f"{why}, through image {digest.hex()[:12]}"
        for needed in self._image(digest, why):
            marks.objects.setdefault(needed, below)

    def _image(self, digest: bytes, why: str) -> frozenset[bytes]:
        if digest not in self._of_image:
            store = self._store
            if not store.has(digest):
                # Dangling: fsck says so. What is not there needs nothing.
                return frozenset()
            try:
                self._of_image[digest] = frozenset(image_objects(store, digest))
            except (InputError, VerificationError) as error:
                raise StoreError(
                    f"image {digest.hex()} cannot be read, so nobody knows which objects it needs",
                    details=f"it is in use by {why}; {error.brief}",
                    resolution="run cfsbuild store fsck --repair, or remove the reference",
                    reason="damaged",
                ) from error
        return self._of_image[digest]

    def _mark_results(self, marks: Marks, held: set[str]) -> None:
        store = self._store
        for key in documents.list_documents(store.fd, layout.NODES):
            if not layout.is_hex(key, 64) or not (key in held or self._young(layout.NODES, key)):
                continue
            result = documents.read_result(store.fd, key, None)
            needed = self._needs(layout.LAYERS, result.layer) if result is not None else None
            if result is None or needed is None:
                continue
            why = f"result of node {result.node} ({key[:12]})"
            marks.results[key] = why
            marks.layers.setdefault(result.layer, why)
            for digest in needed:
                marks.objects.setdefault(digest, why)

    def _mark_tree(self, marks: Marks, name: str) -> None:
        needed = self._needs(layout.TREES, name)
        if needed is None:
            return
        why = f"tree {name[:12]}"
        marks.trees[name] = why
        for digest in needed:
            marks.objects.setdefault(digest, why)

    def _needs(self, directory: str, name: str) -> set[bytes] | None:
        """Return the objects that a layer or tree needs.

        None when it, or one of them, is gone: it is of no use then.
        """
        if (directory, name) not in self._of_document:
            read = documents.read_layer if directory == layout.LAYERS else documents.read_tree
            found = read(self._store.fd, name)
            self._of_document[directory, name] = None if found is None else objects_of(found.entries)
        needed = self._of_document[directory, name]
        return None if needed is None or self._store.missing(needed) else needed

    def _young(self, directory: str, name: str) -> bool:
        """Say whether a file was written or used within the keep age.

        A clock that went back makes it young.
        """
        try:
            status = os.stat(f"{directory}/{name}", dir_fd=self._store.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return time.time() - status.st_mtime < self._keep_age
