"""Where the store is when no option and no configuration file says so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cfsbuild.errors import UsageError


def default_path(environ: Mapping[str, str], configured: Path | None = None) -> Path:
    """Return where the store is: $CFSBUILD_STORE, else what is `configured`, else below $XDG_DATA_HOME.

    Raises `UsageError` when the user has no home directory to put it in.
    """
    if environ.get("CFSBUILD_STORE"):
        return Path(environ["CFSBUILD_STORE"]).absolute()
    if configured is not None:
        return configured.absolute()
    data = environ.get("XDG_DATA_HOME", "")
    if data.startswith("/"):
        return Path(data) / "cfsbuild" / "store"
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        raise UsageError(
            "there is no place for a store", resolution="set CFSBUILD_STORE, or HOME", reason="no-home"
        )
    return Path(home) / ".local" / "share" / "cfsbuild" / "store"
