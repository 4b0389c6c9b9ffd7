from collections.abc import Iterable

from cfsbuild.tree.dump import DumpEntry

class Error(ValueError):
    args: tuple[bytes, str]  # type: ignore[assignment]

def emit(
    entries: Iterable[DumpEntry],
    format: int,
    max_format: int,
    digest_size: int,
    algorithm_id: int,
    max_names: int,
    /,
) -> bytes: ...
