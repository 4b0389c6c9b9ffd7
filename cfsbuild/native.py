"""Extension modules: faster ways to the same results, there only where they were built."""

from __future__ import annotations

import functools
import os
from importlib import import_module
from types import ModuleType


def extension(name: str) -> ModuleType | None:
    """Return the extension module `name`; None when it was not built, or CFSBUILD_NATIVE=0 is set."""
    return None if os.environ.get("CFSBUILD_NATIVE") == "0" else _imported(name)


@functools.cache
def _imported(name: str) -> ModuleType | None:
    try:
        return import_module(name)
    except ImportError:
        return None
