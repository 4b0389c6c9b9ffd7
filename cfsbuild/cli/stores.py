"""Opening the store that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cfsbuild.cli.settings import Settings

if TYPE_CHECKING:
    from cfsbuild.store.store import Store


def open_store(settings: Settings, *, read_only: bool = True) -> Store:
    """Return the store, open; the caller closes it. Raises `StoreError` if there is none."""
    from cfsbuild.store.store import Store  # noqa: PLC0415 (help and completion need no store)

    return Store.open(
        settings.store_path,
        read_only=read_only,
        trusted_uids=settings.trusted_uids,
        shared=settings.shared_store,
    )
