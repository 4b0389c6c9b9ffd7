"""Archives, byte by byte, and what becomes of them."""

from __future__ import annotations

from node_helpers import Objects

from cfsbuild.events import ignore
from cfsbuild.nodes.archive import KIND, ArchiveParams
from cfsbuild.nodes.kind import NodeContext, Owners
from cfsbuild.recipe.model import NodeSpec

USTAR = b"ustar\x0000"
GNU = b"ustar  \0"
V7 = bytes(8)
END = bytes(1024)


def octal(number, size):
    return b"%0*o\0" % (size - 1, number)


def header(
    name=b"f",
    kind=b"0",
    size=0,
    *,
    mode=0o644,
    uid=0,
    gid=0,
    mtime=0,
    link=b"",
    magic=USTAR,
    prefix=b"",
    device=(0, 0),
    fields=(),
    checksum=None,
):
    """Return a header block; `fields` are (offset, bytes) written over it before the checksum is computed."""
    block = bytearray(512)

    def put(offset, value):
        value = value if isinstance(value, bytes) else octal(value, 8)
        block[offset : offset + len(value)] = value

    put(0, name)
    put(100, mode)
    put(108, uid)
    put(116, gid)
    put(124, size if isinstance(size, bytes) else octal(size, 12))
    put(136, mtime if isinstance(mtime, bytes) else octal(mtime, 12))
    put(156, kind)
    put(157, link)
    put(257, magic)
    put(329, device[0])
    put(337, device[1])
    put(345, prefix)
    for offset, value in fields:
        put(offset, value)
    assert len(block) == 512
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block) if checksum is None else checksum
    return bytes(block)


def padded(data):
    return data + bytes(-len(data) % 512)


def member(name=b"f", content=b"", **options):
    return header(name, options.pop("kind", b"0"), options.pop("size", len(content)), **options) + padded(
        content
    )


def record(key, value):
    body = b" " + key + b"=" + value + b"\n"
    size = len(body)
    while len(b"%d" % size) + len(body) != size:
        size = len(b"%d" % size) + len(body)
    return b"%d" % size + body


def pax(*records, kind=b"x"):
    data = b"".join(records)
    return member(b"pax", data, kind=kind)


def long_name(name, kind=b"L"):
    return member(b"././@LongLink", name + b"\0", kind=kind, magic=GNU)


def context_for(path, sink=None, owners=None, events=None, **params):
    spec = NodeSpec(name="rootfs", kind="archive", params=ArchiveParams(source=str(path), **params))
    return NodeContext(
        spec=spec,
        sink=sink or Objects(),
        owners=owners or Owners(),
        epoch=0,
        jobs=1,
        listener=ignore if events is None else events.append,
    )


def read_archive(path, sink=None, **options):
    """Return the layer of the archive at `path`: gathered, then produced, as a build does."""
    context = context_for(path, sink, **options)
    params = context.spec.params
    assert not list(KIND.check(context.spec))
    return KIND.produce(context, params, KIND.gather(context, params))


def contents(layer, sink):
    """Return the content of every regular file of `layer`."""
    return {path: sink.content(inode) for path, inode in layer.entries.items() if inode.is_regular}
