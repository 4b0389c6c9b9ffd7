"""What shells offer for arguments: names that are in the store. Whatever goes wrong, nothing is offered."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfsbuild.cli.settings import Settings, resolve
from cfsbuild.cli.stores import open_store
from cfsbuild.errors import CfsError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def complete_image(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return references of the store that begin with `incomplete`; without any, the shell takes files.

    A shell that is told to take files forgets everything else, so files beside references are named here.
    """
    from click.shell_completion import CompletionItem  # noqa: PLC0415 (only when completing)

    del parameter
    found = [name for name in _references(context) if name.startswith(incomplete)]
    if not found:
        return [CompletionItem(incomplete, type="file")]
    beside = () if "/" in incomplete else Path().iterdir()
    files = (path.name for path in beside if path.name.startswith(incomplete))
    return [CompletionItem(name) for name in sorted({*found, *files})]


def complete_reference(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return references of the store that begin with `incomplete` and were not given yet."""
    given = context.params.get(parameter.name or "") or ()
    return [name for name in _references(context) if name.startswith(incomplete) and name not in given]


def _references(context: click.Context) -> list[str]:
    """Return the names of references; none if there is no store, or none that can be read."""
    given = context.obj if isinstance(context.obj, Settings) else Settings()
    try:
        with contextlib.closing(open_store(resolve(given))) as store:
            return sorted(store.refs())
    except (CfsError, OSError):
        # There is no place to complain.
        return []
