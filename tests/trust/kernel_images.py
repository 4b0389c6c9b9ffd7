"""Kernel images with any sections."""


def portable_executable(*sections):
    """Return a PE file with sections of (name, content, size in memory; None: as long as it is)."""
    head = b"MZ" + bytes(58) + (64).to_bytes(4, "little")
    coff = (
        b"PE\0\0" + bytes(2) + len(sections).to_bytes(2, "little") + bytes(12) + (112).to_bytes(2, "little")
    )
    optional = (0x20B).to_bytes(2, "little") + bytes(110)
    start = len(head) + len(coff) + 2 + len(optional) + 40 * len(sections)
    table = data = b""
    for name, content, size in sections:
        numbers = (len(content) if size is None else size, 0, len(content), start + len(data))
        table += (
            name.encode().ljust(8, b"\0") + b"".join(n.to_bytes(4, "little") for n in numbers) + bytes(16)
        )
        data += content
    return head + coff + bytes(2) + optional + table + data
