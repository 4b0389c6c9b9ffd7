"""Mending a store: first get what is right and verify it, then set aside what is wrong."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Sequence

import msgspec

from cfsbuild.errors import CfsError
from cfsbuild.store import layout, staging, verity
from cfsbuild.store.findings import Finding, FsckReport
from cfsbuild.store.fsck_images import check_images
from cfsbuild.store.store import Store

_IN_PLACE = frozenset({"object-digest", "object-type", "object-unreadable"})
_FROM_SOURCES = _IN_PLACE | {"image-missing", "image-damaged", "image-incomplete"}
_SET_ASIDE = frozenset(
    {
        "stray",
        "layer-damaged",
        "tree-damaged",
        "result-damaged",
        "list-damaged",
        "lease-damaged",
        "document-unreadable",
        "image-link",
        "ref-invalid",
    }
)


def mend(store: Store, report: FsckReport, sources: Sequence[Store]) -> FsckReport:
    """Mend what `report` found; return it with what was done, and with what is still wrong with the images.

    The caller holds the store's locks. Raises `StoreError` or `OSError`.
    """
    quarantine = Quarantine(store.fd)
    fetched: dict[bytes, str] = {}
    wanted = _wanted(report.findings)
    # An image that was fetched may itself lack objects.
    while more := _fetch(store, wanted - fetched.keys(), sources, quarantine):
        fetched |= more
        wanted |= _wanted(_image_findings(store))
    findings = [
        msgspec.structs.replace(finding, repaired=_mend(store, finding, fetched, quarantine))
        for finding in report.findings
    ]
    known = {(finding.kind, finding.where, finding.object) for finding in findings}
    findings += [
        finding
        for finding in _image_findings(store)
        if (finding.kind, finding.where, finding.object) not in known
    ]
    return msgspec.structs.replace(report, findings=tuple(findings))


class Quarantine:
    """A directory in the trash that takes in what is damaged; made when it is first needed."""

    def __init__(self, store_fd: int) -> None:
        self._store_fd = store_fd
        self._path = f"{layout.TRASH}/{layout.QUARANTINE}{time.time_ns():020d}-{os.urandom(4).hex()}"
        self._made = False

    def take(self, where: str) -> str:
        """Move `where`, relative to the store, into the quarantine; say so. Raises `OSError`."""
        if not self._made:
            os.mkdir(self._path, 0o700, dir_fd=self._store_fd)
            self._made = True
        target = f"{self._path}/{where.replace('/', '%')[-layout.COMPONENT_BYTES :]}"
        try:
            os.rename(where, target, src_dir_fd=self._store_fd, dst_dir_fd=self._store_fd)
        except FileNotFoundError:
            return "it is gone"
        return f"moved to {target}"


def _wanted(findings: Iterable[Finding]) -> set[bytes]:
    return {bytes.fromhex(item.object) for item in findings if item.kind in _FROM_SOURCES}


def _image_findings(store: Store) -> list[Finding]:
    findings: list[Finding] = []
    check_images(store, findings.append)
    return findings


def _fetch(
    store: Store, wanted: set[bytes], sources: Sequence[Store], quarantine: Quarantine
) -> dict[bytes, str]:
    """Replace the objects that a source has, verified; return from where each came."""
    fetched: dict[bytes, str] = {}
    if not wanted or not sources:
        return fetched
    with store.transaction() as transaction:
        for digest in sorted(wanted):
            for source in sources:
                data = _read(source, digest)
                if data is not None and transaction.replace(data) == digest:
                    fetched[digest] = f"replaced from {source.path}"
                    break
        for digest in fetched:
            status = store.objects.status(digest)
            if status is not None and not stat.S_ISREG(status.st_mode):
                # A file cannot be renamed over a directory.
                quarantine.take(layout.object_path(digest))
        transaction.commit()
    return fetched


def _read(source: Store, digest: bytes) -> bytes | None:
    """Return an object's verified content; None when the source does not have it, or has it damaged."""
    try:
        return source.read_object(digest)
    except CfsError:
        return None


def _mend(store: Store, finding: Finding, fetched: dict[bytes, str], quarantine: Quarantine) -> str:
    """Return what was done; empty for nothing."""
    if finding.kind in _FROM_SOURCES and bytes.fromhex(finding.object) in fetched:
        return fetched[bytes.fromhex(finding.object)]
    if finding.kind in _IN_PLACE or finding.kind in _SET_ASIDE:
        return quarantine.take(finding.where)
    if finding.kind == "object-mode":
        os.chmod(finding.where, 0o444, dir_fd=store.fd)
        return "mode 0444"
    if finding.kind == "object-verity":
        return _enforce(store, finding)
    if finding.kind == "leftover":
        staging.remove_leftovers(store.fd)
        return "removed"
    return ""


def _enforce(store: Store, finding: Finding) -> str:
    try:
        verity.seal(store.fd, finding.where, bytes.fromhex(finding.object), store.algorithm)
    except (CfsError, OSError):
        # A damaged object (reported by itself), or no fs-verity here any more: the finding stays.
        return ""
    return "enabled"
