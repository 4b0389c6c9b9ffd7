"""What the verbs that talk to a TPM have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cfsbuild.errors import UsageError
from cfsbuild.trust.tpm.transport import DEFAULT_NAME

if TYPE_CHECKING:
    from cfsbuild.trust.tpm.connection import Tpm

Function = TypeVar("Function", bound=Callable[..., Any])


def nv_index(value: str) -> int:
    """Return the number of an NV index, written in decimal or as 0x…. Raises `UsageError`."""
    try:
        return int(value, 0)
    except ValueError:
        raise UsageError(
            f"{value!r} is no NV index",
            resolution="write it as 0x01800100",
            reason="counter-index",
        ) from None


def tpm_option(function: Function) -> Function:
    """Add `--tpm`, as the parameter `tpm_name`."""
    return click.option(
        "--tpm",
        "tpm_name",
        metavar="TPM",
        default=DEFAULT_NAME,
        show_default=True,
        help="The TPM: a device, swtpm:HOST:PORT or swtpm:/SOCKET.",
    )(function)


def counter_option(explanation: str) -> Callable[[Function], Function]:
    """Add `--counter`, as a parameter of that name, which is None for the usual index."""
    return click.option("--counter", metavar="INDEX", type=nv_index, help=f"{explanation} [0x01800100].")


def open_tpm(name: str) -> Tpm:
    """Open a TPM, for a `with` block. Raises `TpmError`, `UsageError`."""
    from cfsbuild.trust.tpm.connection import Tpm  # noqa: PLC0415 (help needs no cryptography)
    from cfsbuild.trust.tpm.transport import open_transport  # noqa: PLC0415

    return Tpm(open_transport(name))
