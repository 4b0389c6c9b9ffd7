"""Calling a front end without importing click."""

from __future__ import annotations

import importlib

PACKAGE = "cfsbuild.cli"


def run_front_end(module: str, program_name: str, arguments: list[str]) -> int:
    """Call the front end in `module` as `program_name`; return its exit status."""
    front_end = importlib.import_module(f"{PACKAGE}.{module}")
    status: int = front_end.main(arguments, program_name)
    return status
