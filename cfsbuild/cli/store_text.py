"""What `cfsbuild store` writes for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cfsbuild.cli import render
from cfsbuild.store.findings import FsckReport
from cfsbuild.store.gc import GcReport
from cfsbuild.store.info import Sharing, StoreInfo


def info_lines(facts: StoreInfo) -> list[str]:
    """Return a table of facts."""
    size = render.human_size
    rows = [
        ("path", facts.path),
        ("digest", facts.algorithm),
        ("writable", "yes" if facts.writable else f"no: {facts.read_only_reason}"),
        ("fs-verity", "enforced by the kernel" if facts.verity else f"not enforced: {facts.verity_reason}"),
        ("hashing", facts.implementation),
        ("objects", f"{facts.objects:,}"),
        ("content", f"{size(facts.stored_bytes)}, {size(facts.disk_bytes)} on disk"),
        ("images", f"{facts.images:,} with {render.count(facts.references, 'reference')}"),
        ("without sharing", f"{size(facts.logical_bytes)} for all images"),
        *(_sharing(row) for row in facts.sharing),
        ("results", f"{facts.results:,} with {render.count(facts.layers, 'layer')}"),
        ("trees", f"{facts.trees:,}"),
        ("leases", f"{facts.leases:,}"),
        ("trash", render.count(facts.trash_objects, "object")),
        *(("unreadable", f"image {digest}") for digest in facts.unreadable),
    ]
    return render.columns(rows, gap="  ")


def _sharing(row: Sharing) -> tuple[str, str]:
    name = "  in no image" if row.images == 0 else f"  in {render.count(row.images, 'image')}"
    return name, f"{render.count(row.objects, 'object')}, {render.human_size(row.bytes)}"


def fsck_lines(report: FsckReport) -> Iterator[str]:
    """Yield one line for each finding, then a summary."""
    for finding in report.findings:
        mark = "repaired" if finding.repaired else "damage" if finding.damage else "note"
        done = f" ({finding.repaired})" if finding.repaired else ""
        yield f"{mark}: {finding.kind}: {finding.where}: {finding.details}{done}"
    yield (
        f"checked {render.count(report.objects, 'object')} ({render.human_size(report.bytes)}), "
        f"{render.count(report.images, 'image')}, {render.count(report.references, 'reference')}, "
        f"{render.count(report.documents, 'document')}: {_verdict(report)}"
    )


def _verdict(report: FsckReport) -> str:
    if report.damage:
        return f"{report.damage} damaged"
    mended = sum(bool(finding.repaired) for finding in report.findings)
    return f"clean, {mended} repaired" if mended else "clean"


def gc_lines(report: GcReport, *, verbose: bool) -> Iterator[str]:
    """Yield what goes and, in a dry run, why the rest stays; object by object with `verbose`."""
    if verbose:
        yield from (f"keep object {kept.object}: {kept.why}" for kept in report.kept)
        yield from (
            f"remove {item.kind} {item.name} ({render.human_size(item.bytes)})" for item in report.removed
        )
    elif report.dry_run:
        reasons = Counter(kept.why.partition(", through image ")[0] for kept in report.kept)
        yield from (f"keep {render.count(number, 'object')}: {why}" for why, number in reasons.most_common())
    kinds = Counter(item.kind for item in report.removed)
    what = ", ".join(render.count(count, kind) for kind, count in sorted(kinds.items())) or "nothing"
    verb = "would remove" if report.dry_run else "removed"
    stay = render.count(report.objects, "object")
    yield f"{verb} {what} ({render.human_size(report.removed_bytes)}); {stay} stay"
    if report.purged:
        purged = render.count(report.purged, "object")
        yield f"freed {render.human_size(report.purged_bytes)} of {purged} in the trash"
