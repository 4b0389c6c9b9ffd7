from collections.abc import Callable, Sequence
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

def ingest(
    directory: int,
    names: Sequence[bytes],
    records: Buffer,
    numbers: Buffer,
    staging: int,
    objects: int,
    sync: bool,
    algorithm: int,
    threads: int,
    kernel: str,
    progress: Callable[[int, int], None] | None,
    /,
) -> tuple[list[bytes], bytes, int, int] | tuple[None, None, int, int]: ...
def present(objects: int, digests: Sequence[bytes], sizes: Buffer, uid: int, /) -> bytes: ...
def rename_new(source_fd: int, source: bytes, target_fd: int, target: bytes, /) -> int: ...
def sync_file_system(fd: int, /) -> int: ...
