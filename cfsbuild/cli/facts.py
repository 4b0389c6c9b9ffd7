"""What two images differ in beside their trees: format, header, superblock, and how contents are stored."""

from __future__ import annotations

import stat

import msgspec

from cfsbuild.cli.images import Image
from cfsbuild.cli.lookup import Entries
from cfsbuild.fsverity.algorithm import Algorithm, algorithm_of_digest
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry
from cfsbuild.tree.layer import Tree


class Fact(msgspec.Struct, frozen=True):
    """One property of an image file that differs; `path` is empty unless it belongs to one path."""

    name: str
    before: str | int | bool | None
    after: str | int | bool | None
    meaning: str
    path: str = ""


_MEANINGS = {
    "format": "the composefs format version (`format` in a recipe, --max-version of mkcomposefs)",
    "algorithm": "the hash that names objects (`digest` in a recipe)",
    "acl": "one image has POSIX ACLs, and says so in its header",
    "build-time": "the least mtime of the tree, which the superblock repeats",
    "root-nid": "where the root inode lies: it follows from the root's xattrs and size",
    "inodes": "how many inodes there are: it follows from the tree (hard links or copies?)",
    "xattr-offset": "where shared xattrs lie: it follows from the tree",
    "size": "the size of the image file: it follows from the tree",
}


def image_facts(image: Image) -> dict[str, str | int | bool]:
    """Return the properties of the image file, those that matter most first; none for a dump."""
    if image.kind == "dump":
        return {}
    from cfsbuild.erofs.superblock import parse_superblock  # noqa: PLC0415 (not for dumps)

    info = image.read()
    block = parse_superblock(image.data)
    return {
        "format": info.format,
        "algorithm": info.algorithm.value,
        "acl": info.has_acl,
        "build-time": f"{block.build_sec}.{block.build_nsec:09d}",
        "root-nid": block.root_nid,
        "inodes": block.inodes,
        "xattr-offset": block.xattr_offset,
        "size": len(image.data),
    }


def compare_facts(a: Image, b: Image) -> list[Fact]:
    """Return which properties of the image files differ; nothing if one of the two is a dump."""
    before, after = image_facts(a), image_facts(b)
    return [
        Fact(name, value, after[name], _MEANINGS[name])
        for name, value in before.items()
        if name in after and after[name] != value
    ]


def compare_storage(a: Entries, b: Entries) -> list[Fact]:
    """Return the files whose content is the same, but kept in another way by the two images."""
    return [
        fact
        for path, entry in a.items()
        if path in b and stat.S_ISREG(entry.mode) and stat.S_ISREG(b[path].mode)
        for fact in _storage(entry, b[path])
    ]


def _storage(a: DumpEntry, b: DumpEntry) -> list[Fact]:
    path = paths.show(a.path)
    if a.size != b.size or not a.size:
        return []
    if (a.content is None) != (b.content is None):
        if not _same_content(a, b):
            return []
        how = ["an object" if entry.content is None else "inline" for entry in (a, b)]
        return [Fact("stored", how[0], how[1], "the images inline small files up to different sizes", path)]
    if (a.digest is None) != (b.digest is None):
        how = ["without a digest" if entry.digest is None else "with a digest" for entry in (a, b)]
        return [Fact("digest", how[0], how[1], "only one image lets the kernel verify this file", path)]
    if a.digest == b.digest and a.payload != b.payload:
        shown = [paths.show(entry.payload or b"") for entry in (a, b)]
        return [Fact("backing-path", shown[0], shown[1], "the object is found under another path", path)]
    return []


def _same_content(a: DumpEntry, b: DumpEntry) -> bool:
    """Say whether inline content and object, one of each, are the same bytes."""
    from cfsbuild.fsverity.digest import digest_bytes  # noqa: PLC0415 (rarely needed)

    inline, stored = (a, b) if a.content is not None else (b, a)
    if inline.content is None or stored.digest is None:
        return False
    return digest_bytes(inline.content, algorithm_of_digest(stored.digest)) == stored.digest


def comparable_tree(entries: Entries) -> Tree:
    """Return the tree of an image for comparison, also when some files carry no digest.

    Such a file counts as the object that its backing path names; if that names none, as the path itself.
    """
    from cfsbuild.tree.flavour import from_dump  # noqa: PLC0415 (not for facts alone)

    return from_dump(map(_with_digest, entries.values()))


def _with_digest(entry: DumpEntry) -> DumpEntry:
    if (
        not stat.S_ISREG(entry.mode)
        or not entry.size
        or entry.content is not None
        or entry.digest is not None
    ):
        return entry
    return msgspec.structs.replace(entry, digest=_named_by(entry.payload or b""))


def _named_by(payload: bytes) -> bytes:
    from cfsbuild.fsverity.digest import digest_bytes  # noqa: PLC0415 (rarely needed)

    text = payload.replace(b"/", b"", 1)
    if len(text) in {64, 128} and payload[2:3] == b"/" and not text.strip(b"0123456789abcdef"):
        return bytes.fromhex(text.decode())
    return digest_bytes(payload, Algorithm.SHA256)


def first_different_byte(a: bytes, b: bytes) -> int | None:
    """Return the offset of the first byte that differs; None if the two are equal."""
    if a == b:
        return None
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high) // 2
        if a[low : middle + 1] == b[low : middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low
