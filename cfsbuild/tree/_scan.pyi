from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

def scan(
    fd: int, depth: int, path_bytes: int, entries: int, one_file_system: bool, threads: int, /
) -> tuple[bytes, bytes]: ...
def match(old_records: Buffer, old_names: Buffer, records: Buffer, names: Buffer, /) -> bytes: ...
