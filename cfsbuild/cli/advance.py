"""`cfsbuild advance`: count this machine's rollback counter up, so that what is older unseals no more."""

from __future__ import annotations

import click
import msgspec

from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.tpms import counter_option, open_tpm, tpm_option

COUNTER_VERSION = 1


class CounterFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A counter as it is now: NV index, Name in hex, value."""

    version: int = COUNTER_VERSION
    index: int
    name: str
    value: int


@click.command("advance")
@common_options("json")
@tpm_option
@counter_option("NV index of the counter")
@click.argument("value", metavar="[VALUE]", type=click.IntRange(min=0, max=2**53 - 1), required=False)
@pass_settings
def command(settings: Settings, value: int | None, *, tpm_name: str, counter: int | None) -> None:
    """Count this machine's rollback counter up to VALUE, and print it; without VALUE print it only.

    Everything sealed for lower values unseals no more, on this machine and for ever: do it after the new
    release has booted well, and never beyond the oldest that must still boot. VALUE is the counter's value at
    enrolment plus the generation.
    """
    from cfsbuild.trust.counter import (  # noqa: PLC0415 (help needs no cryptography)
        DEFAULT_INDEX,
        advance_counter,
        read_counter,
    )

    with open_tpm(tpm_name) as tpm:
        found = read_counter(tpm, DEFAULT_INDEX if counter is None else counter)
        before = found.value
        if value is not None and not settings.dry_run:
            found = advance_counter(tpm, found.index, value)
    if settings.json:
        write_json(CounterFacts(index=found.index, name=found.name.hex(), value=found.value))
        return
    write_lines([str(found.value)])
    if value is not None and found.value == before != value:
        note(settings, f"the counter was at {before} already" if before > value else "nothing was done")
