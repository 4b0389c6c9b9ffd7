"""fsck of images: links, references, the images themselves, and whether all that they need is there."""

from __future__ import annotations

from cfsbuild.errors import CfsError, InputError
from cfsbuild.store import contents, documents, images, layout, syscalls
from cfsbuild.store.findings import Finding, Report
from cfsbuild.store.store import Store


def check_images(store: Store, report: Report) -> int:
    """Check everything in `images/` but references; return how many images there are. Raises `OSError`."""
    count = 0
    for name in syscalls.names_in(layout.IMAGES, dir_fd=store.fd):
        where = f"{layout.IMAGES}/{name}"
        if where == layout.REFS:
            continue
        digest = layout.parse_digest(name, store.algorithm)
        if digest is None:
            report(Finding(kind="stray", where=where, details="its name is no digest"))
            continue
        count += 1
        target = syscalls.read_link(where, dir_fd=store.fd)
        if target != layout.image_target(digest):
            details = "not a link" if target is None else f"points to {target}"
            report(Finding(kind="image-link", where=where, details=details))
        elif store.objects.find(digest) is None:
            report(
                Finding(kind="image-missing", where=where, details="its object is gone", object=digest.hex())
            )
        else:
            _check_image(store, digest, report)
    return count


def _check_image(store: Store, digest: bytes, report: Report) -> None:
    where = f"{layout.IMAGES}/{digest.hex()}"
    try:
        needed = contents.objects_in(store.read_object(digest), store.algorithm)
    except InputError as error:
        report(Finding(kind="image-invalid", where=where, details=error.brief))
        return
    except CfsError as error:
        # Damaged: the object itself is reported with its digest.
        report(Finding(kind="image-damaged", where=where, details=error.brief, object=digest.hex()))
        return
    for missing in sorted(store.objects.missing(needed)):
        details = f"lacks object {missing.hex()}"
        report(Finding(kind="image-incomplete", where=where, details=details, object=missing.hex()))
    _check_list(store, digest, needed, report)


def _check_list(store: Store, digest: bytes, needed: set[bytes], report: Report) -> None:
    """Compare the list beside an image with what the image says."""
    where = f"{layout.CONTENTS}/{digest.hex()}"
    data = documents.read_document(store.fd, layout.CONTENTS, digest.hex())
    if data is not None and data != contents.encode_contents(needed):
        report(Finding(kind="list-damaged", where=where, details="it does not say what the image needs"))


def check_refs(store: Store, report: Report) -> int:
    """Check everything below `images/refs`; return how many references there are. Raises `OSError`."""
    count = 0
    for name, target in images.list_links(store.fd):
        where = f"{layout.REFS}/{name}"
        digest = layout.parse_digest((target or "").rpartition("/")[2], store.algorithm)
        if target is None:
            report(Finding(kind="stray", where=where, details="not a link"))
        elif digest is None or target != layout.ref_target(name, digest):
            report(Finding(kind="ref-invalid", where=where, details=f"points to {target}"))
        elif not images.is_image(store.fd, digest):
            details = f"there is no image {digest.hex()}"
            report(Finding(kind="ref-dangling", where=where, details=details, object=digest.hex()))
        else:
            count += 1
    return count
