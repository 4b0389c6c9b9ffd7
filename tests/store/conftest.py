from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfsbuild.store.store import Store


@pytest.fixture
def store() -> Iterator[Store]:
    """Yield an empty store, in memory where that is possible: its many syncs then cost nothing."""
    memory = Path("/dev/shm")  # noqa: S108 (mkdtemp makes the name safe)
    directory = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    try:
        with Store.init(directory / "store") as store:
            yield store
    finally:
        shutil.rmtree(directory)
