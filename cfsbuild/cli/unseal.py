"""`cfsbuild unseal`: open a sealed bundle on the machine that it is for, or say what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cfsbuild.cli import render
from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.output_file import write_or_print
from cfsbuild.cli.passphrases import PIN, ask_passphrase, given_passphrase, pin_options
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.tpms import open_tpm, tpm_option
from cfsbuild.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from cfsbuild.trust.explanation import BranchState, CounterState
    from cfsbuild.trust.unsealing import Explanation

_SHORT = 16

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("unseal")
@common_options("json", "color", changes=True)
@tpm_option
@click.option("--policy", metavar="FILE", type=FILE, help="The unseal policy [beside it: NAME.policy.json].")
@click.option(
    "--srk",
    metavar="NAME",
    help="Name (hex) of the storage root key that the TPM must have, as its enrolment says.",
)
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write to FILE [standard output]."
)
@click.option("--explain", "only_explain", is_flag=True, help="Unseal nothing; say what would stop it.")
@pin_options
@click.argument("file", metavar="FILE", type=FILE)
@pass_settings
def command(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    file: Path,
    *,
    tpm_name: str,
    policy: Path | None,
    srk: str | None,
    output: Path | None,
    only_explain: bool,
    pin_fd: int | None,
    pin_file: Path | None,
) -> int:
    """Open the sealed bundle FILE (.cfsb) with this machine's TPM, and write what is in it.

    That is a signed document whose signature was NOT verified: anyone who has this machine's public key can
    seal to it. Exit status 5 if the TPM does not release it; --explain says why, condition by condition.
    """
    from cfsbuild.deploy import bundle_file  # noqa: PLC0415 (help needs no cryptography)
    from cfsbuild.trust import files, process, sealed, unsealing  # noqa: PLC0415

    data = files.read_regular(file, limit=sealed.SEALED_BYTES)
    sealed.parse(data)
    pinned = _name(srk)
    if only_explain:
        with open_tpm(tpm_name) as tpm:
            explained = unsealing.explain(tpm, data, bundle_file.read_policy(file, tpm, policy))
        if settings.json:
            write_json(explained)
        else:
            write_lines(_lines(explained, color=settings.color_on_stdout))
        return 0 if explained.unseals else VerificationError.exit_code
    process.forbid_core_dumps()
    given = given_passphrase(pin_fd, pin_file, PIN)
    with open_tpm(tpm_name) as tpm:
        document = bundle_file.read_policy(file, tpm, policy)
        opened = unsealing.unseal(
            tpm, data, document, pin=lambda: given or ask_passphrase(file.name, secret=PIN), srk_name=pinned
        )
    write_or_print(output, opened, mode=0o600)
    note(settings, "unsealed, and not verified: whoever wrote this is not known")
    return 0


def _name(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"{text!r} is no Name in hex", reason="srk-name") from None


def _lines(explained: Explanation, *, color: bool) -> list[str]:
    """Return the explanation as text: the verdict, then each condition, those that fail in full."""
    mark = render.paint("yes", "green", color=color) if explained.unseals else None
    verdict = mark or render.paint("no", "red", color=color)
    lines = [f"{explained.name}: would unseal here and now: {verdict}"]
    if explained.brief:
        lines.append(f"  {explained.brief} ({explained.reason})")
    rows = [
        _row("sealed to this machine", "yes" if explained.ours else "no", fits=explained.ours),
        *([] if explained.approved is None else [_approval(valid=explained.approved)]),
    ]
    if explained.lockout is not None:
        used = f"{explained.lockout.failures} of {explained.lockout.allowed} wrong ones"
        rows.append(_row("PIN", f"is asked for; {used}", fits=not explained.lockout.locked))
    lines += ["", *render.columns(rows, gap="  ")]
    many = len(explained.branches) > 1
    for number, branch in enumerate(explained.branches):
        title = f"state {number + 1} of {len(explained.branches)}" if many else "state"
        nearest = ", the nearest" if many and number == explained.nearest else ""
        lines += ["", f"{title}{nearest}:", *_branch(branch)]
    return lines


def _approval(*, valid: bool) -> list[str]:
    return _row("approval", "valid" if valid else "the signature is wrong", fits=valid)


def _row(name: str, text: str, *, fits: bool) -> list[str]:
    return [f"  {'ok' if fits else 'NO'}", name, text]


def _branch(branch: BranchState) -> Iterator[str]:
    rows = [
        _row(f"PCR {register.pcr}", f"{register.found[:_SHORT]}…", fits=True)
        for register in branch.registers
        if register.fits
    ]
    if branch.counter is not None and branch.counter.fits:
        rows.append(_row(f"counter 0x{branch.counter.index:08x}", _counter(branch.counter), fits=True))
    yield from render.columns(rows, gap="  ")
    for register in branch.registers:
        if not register.fits:
            yield f"  NO  PCR {register.pcr}: {register.about}"
            yield f"        expected {register.expected}"
            yield f"        found    {register.found}"
    if branch.counter is not None and not branch.counter.fits:
        yield f"  NO  counter 0x{branch.counter.index:08x}: {branch.counter.reason}"
        yield from (f"        {line}" for line in branch.counter.details.splitlines())


def _counter(counter: CounterState) -> str:
    return f"at {counter.value}, at most {counter.limit}"
