from collections.abc import Iterable

from cfsbuild.tree.dump import DumpEntry

class Error(ValueError):
    args: tuple[bytes, str]

def emit(
    entries: Iterable[DumpEntry],
    format: int,  # noqa: A002 (positional only)
    max_format: int,
    digest_size: int,
    algorithm_id: int,
    max_names: int,
    /,
) -> bytes: ...
