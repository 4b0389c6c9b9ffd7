"""`cfsbuild enroll`: say what this machine's TPM is, so that others can seal for it."""

from __future__ import annotations

from pathlib import Path

import click

from cfsbuild.cli.output import note
from cfsbuild.cli.output_file import write_or_print
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.tpms import counter_option, open_tpm, tpm_option


@click.command("enroll")
@common_options("json", changes=True)
@tpm_option
@click.option("--create-srk", is_flag=True, help="Make the storage root key if there is none.")
@counter_option("NV index of the rollback counter, which is made if there is none")
@click.option("--no-counter", is_flag=True, help="Make and name no counter.")
@click.option(
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write to FILE instead of standard output.",
)
@pass_settings
def command(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    *,
    tpm_name: str,
    create_srk: bool,
    counter: int | None,
    no_counter: bool,
    output: Path | None,
) -> None:
    """Write what others need to know of this machine's TPM to seal for it: its keys and its counter.

    Nothing in the document is secret. It is not signed either: take it where it is used on a way that you
    trust.
    """
    from cfsbuild.trust import enrolment  # noqa: PLC0415 (help needs no cryptography)
    from cfsbuild.trust.counter import DEFAULT_INDEX  # noqa: PLC0415

    index = DEFAULT_INDEX if counter is None else counter
    with open_tpm(tpm_name) as tpm:
        made = enrolment.enroll(tpm, create_srk=create_srk, counter=None if no_counter else index)
    write_or_print(output, enrolment.encode(made))
    note(settings, f"storage root key  {made.srk.name}")
    if made.counter is not None:
        note(settings, f"counter           0x{made.counter.index:08x}, at {made.counter.base}")
