"""Fuzz the tar reader with atheris: `python tests/nodes/fuzz_tar.py [-max_total_time=60] [CORPUS]`.

Whatever the bytes are, they give members and a tree, or an `InputError`, nothing else.
"""

import sys

import atheris

with atheris.instrument_imports(include=["cfsbuild.nodes.tar", "cfsbuild.nodes.decompress"]):
    from cfsbuild.nodes.decompress import decompressed, detect
    from cfsbuild.nodes.tar.members import REGULAR, TarReader
    from cfsbuild.nodes.tar.model import TreeModel, make_inode, normal_name
    from cfsbuild.nodes.tar.stream import ByteStream

from cfsbuild.errors import InputError

SUMS = (slice(148), slice(156, 512))


def with_checksums(data):
    """Return `data` with every block's checksum made right; otherwise no input would get beyond it."""
    blocks = bytearray()
    for start in range(0, len(data), 512):
        block = bytearray(data[start : start + 512].ljust(512, b"\0"))
        total = sum(sum(block[part]) for part in SUMS) + 256
        block[148:156] = b"%06o\0 " % total
        blocks += block
    return bytes(blocks)


def read(data):
    position = 0

    def next_bytes(size):
        nonlocal position
        piece = data[position : position + size]
        position += len(piece)
        return piece

    model = TreeModel()
    try:
        reader = TarReader(ByteStream(decompressed(next_bytes, detect(data[:8]))))
        for member in reader:
            path = normal_name(member.name)
            if member.type == b"1":
                model.link(path, normal_name(member.link))
                continue
            content = b"x" if member.type == REGULAR and member.size and reader.whole_content(member) else b""
            model.add(path, make_inode(member, content=content))
        model.layer(b"/")
    except InputError:
        pass


def one_input(data):
    read(data)
    read(with_checksums(data) + bytes(1024))


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
