from collections.abc import Callable, Iterable
from typing import overload

from cfsbuild.tree.dump import DumpEntry

class Error(ValueError):
    args: tuple[bytes, str]

@overload
def emit(
    entries: Iterable[DumpEntry],
    parse: None,
    format: int,
    max_format: int,
    digest_size: int,
    algorithm_id: int,
    max_names: int,
    /,
) -> bytes: ...
@overload
def emit(
    entries: Iterable[bytes],
    parse: Callable[[bytes, int], DumpEntry],
    format: int,
    max_format: int,
    digest_size: int,
    algorithm_id: int,
    max_names: int,
    /,
) -> bytes: ...
