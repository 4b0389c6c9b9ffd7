"""Memory that goes back to the system as soon as it is freed."""

from __future__ import annotations

from cfsbuild.native import extension


def map_large_blocks() -> None:
    """Let blocks of a megabyte or more leave this process when they are freed; for a process that builds.

    A build makes documents of many megabytes one after the other. The C library would keep them for later
    ones, in a heap with holes: a quarter of all that the process has at its peak.
    """
    native = extension("cfsbuild.tree._scan")
    if native is not None:
        native.map_large()


def give_back() -> None:
    """Give back what was freed in pieces: after much of it, and before much else is needed."""
    native = extension("cfsbuild.tree._scan")
    if native is not None:
        native.trim()
