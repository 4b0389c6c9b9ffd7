"""`cfsbuild seal`: encrypt a signed bundle so that only enrolled machines can open it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec

from cfsbuild.cli.output import note, write_json, write_lines
from cfsbuild.cli.output_file import write_result
from cfsbuild.cli.passphrases import PIN, ask_passphrase, given_passphrase, passphrase_options, pin_options
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.errors import UsageError
from cfsbuild.trust.registers import KERNEL_PCR, REGISTER

if TYPE_CHECKING:
    from cfsbuild.trust.enrolment import Enrolment
    from cfsbuild.trust.keys import PrivateKey, PublicKey
    from cfsbuild.trust.sealing import Kernels, State

SEALED_VERSION = 1
LEVELS = ("sealed", "cred")

_SIGNED_SUFFIXES = (".bundle", ".dsse")
_POLICY_SUFFIX = ".policy.json"
_SUFFIXES = {"sealed": ".cfsb", "cred": ".cred"}
_SECURE_BOOT_PCR = 7
_PCR_BYTES = 32
_VALUE = re.compile(r"[0-9a-fA-F]{64}")

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """What was sealed: to how many machines, in how many states, up to which generation; files written."""

    version: int = SEALED_VERSION
    name: str
    level: str
    machines: list[str]
    states: int
    generation: int | None
    policy_key: str | None
    pin: bool
    files: list[str]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What the options say: what is sealed to whom (`to`), and under which terms."""

    bundle: Path
    to: tuple[Path, ...]
    name: str | None
    policy_key: Path | None
    level: str
    pcrs: tuple[str, ...]
    ukis: tuple[Path, ...]
    phase: str
    policy_only: bool
    counter: bool | None
    generation: int | None


class Described(msgspec.Struct, frozen=True):
    """What a signed document may say of itself; other fields do not matter here."""

    name: str = ""
    generation: int | None = None


class Order(NamedTuple):
    """All that is needed to seal."""

    envelope: bytes
    name: str
    machines: list[Enrolment]
    choice: Choice
    generation: int | None
    private: PrivateKey | None
    public: PublicKey | None
    pin: bytes
    values: list[tuple[int, bytes | None]]
    kernels: Kernels


@click.command("seal")
@common_options("json", changes=True)
@click.option(
    "--to",
    "to",
    metavar="FILE",
    multiple=True,
    required=True,
    type=FILE,
    help="What `enroll` said on the machine (may be repeated).",
)
@click.option(
    "--pcr",
    "pcrs",
    metavar="N[=HEX]",
    multiple=True,
    help="Value that register N must have, `0` for zeros [as at enrolment]; a second one of N is a choice.",
)
@click.option(
    "--uki",
    "ukis",
    metavar="FILE",
    multiple=True,
    type=FILE,
    help="Kernel image that must have booted (PCR 11); a second one is a choice.",
)
@click.option(
    "--phase",
    metavar="WORDS",
    default="enter-initrd",
    show_default=True,
    help="How far it has booted, for --uki.",
)
@click.option("--policy-key", metavar="FILE", type=FILE, help="Key that approves states, now and later.")
@click.option(
    "--policy-only",
    is_flag=True,
    help="Approve other states for what is sealed already (with the PIN, if it has one).",
)
@click.option(
    "--counter/--no-counter",
    default=None,
    help="Refuse what is older than the machine's counter [if the machine has one].",
)
@click.option(
    "--generation",
    metavar="N",
    type=click.IntRange(min=0),
    help="How new the bundle is, for --counter [what the document says].",
)
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default="sealed",
    show_default=True,
    help="A sealed bundle, or a systemd credential.",
)
@click.option("--name", help="What the bundle is called [what the document says, else the file's name].")
@click.option("--output", metavar="FILE", type=click.Path(path_type=Path), help="The file [BUNDLE.cfsb].")
@pin_options
@passphrase_options
@click.argument("bundle", metavar="BUNDLE", type=FILE)
@pass_settings
def command(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    bundle: Path,
    *,
    to: tuple[Path, ...],
    pcrs: tuple[str, ...],
    ukis: tuple[Path, ...],
    phase: str,
    policy_key: Path | None,
    policy_only: bool,
    counter: bool | None,
    generation: int | None,
    level: str,
    name: str | None,
    output: Path | None,
    pin_fd: int | None,
    pin_file: Path | None,
    passphrase_fd: int | None,
    passphrase_file: Path | None,
) -> None:
    """Seal BUNDLE, a signed document (.bundle), to the TPMs of enrolled machines. No TPM is needed here.

    Sealing is no signature: whoever opens the bundle still has to verify who signed it.
    """
    from cfsbuild.trust import process, sealing  # noqa: PLC0415 (help needs no cryptography)

    process.forbid_core_dumps()
    choice = Choice(
        bundle=bundle,
        to=to,
        name=name,
        policy_key=policy_key,
        level=level,
        pcrs=pcrs,
        ukis=ukis,
        phase=phase,
        policy_only=policy_only,
        counter=counter,
        generation=generation,
    )
    pin = given_passphrase(pin_fd, pin_file, PIN)
    _check(choice, pin=bool(pin))
    base = _base(bundle, output, choice)
    order = _order(choice, pin, given_passphrase(passphrase_fd, passphrase_file))
    states = sealing.boot_states(order.values, order.kernels)
    files = _credential_files(order) if level == "cred" else _bundle_files(order, states)
    written = _write(base, order.name, files)
    _warn(settings, order, states)
    _tell(settings, order, len(states), written)


def _check(choice: Choice, *, pin: bool) -> None:
    if choice.level == "cred" and (
        pin or choice.counter or choice.policy_only or choice.generation is not None
    ):
        raise UsageError(
            "systemd's credentials know neither PIN nor counter nor other policies",
            resolution="leave --level at sealed",
            reason="usage",
        )
    if choice.generation is not None and choice.counter is False:
        raise UsageError("--generation is for --counter", reason="usage")


def _order(choice: Choice, pin: bytes, passphrase: bytes) -> Order:
    """Read what the options name. Raises `InputError`, `UsageError`, `VerificationError`."""
    from cfsbuild.trust import enrolment, sealing  # noqa: PLC0415 (help needs no cryptography)

    envelope, described = _read_bundle(choice.bundle)
    machines = [enrolment.read(path) for path in choice.to]
    private, public = _read_key(choice.policy_key, passphrase)
    return Order(
        envelope=envelope,
        name=choice.name or described.name or _stem(choice.bundle),
        machines=machines,
        choice=choice,
        generation=_generation(choice, machines, described),
        private=private,
        public=public,
        pin=pin,
        values=[_register(text) for text in choice.pcrs],
        kernels=sealing.read_kernels(choice.ukis, choice.phase),
    )


def _read_bundle(path: Path) -> tuple[bytes, Described]:
    """Return the envelope, and what the document in it says of itself. Raises `VerificationError`."""
    from cfsbuild.trust import dsse, files  # noqa: PLC0415 (help needs no cryptography)

    envelope = files.read_regular(path, limit=dsse.ENVELOPE_BYTES)
    _, payload = dsse.unverified(envelope)
    try:
        return envelope, msgspec.json.decode(payload, type=Described)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return envelope, Described()


def _read_key(path: Path | None, given: bytes) -> tuple[PrivateKey | None, PublicKey | None]:
    """Return the policy key, and its public part; only the latter if only that is in the file."""
    from cfsbuild.trust import key_files  # noqa: PLC0415

    if path is None:
        return None, None
    try:
        return None, key_files.read_public_key(path)
    except UsageError as error:
        if error.reason != "key-private":
            raise
    private = key_files.read_private_key(path, lambda: given or ask_passphrase(str(path)))
    return private, private.public_key()


def _generation(choice: Choice, machines: Sequence[Enrolment], described: Described) -> int | None:
    """Return up to which generation machines may be to open the bundle; None for no limit."""
    if choice.level == "cred" or choice.counter is False:
        return None
    if choice.counter is None and choice.generation is None and not any(each.counter for each in machines):
        return None
    generation = described.generation if choice.generation is None else choice.generation
    if generation is None:
        raise UsageError(
            "the document does not say how new it is",
            resolution="say --generation N, or --no-counter: then it opens for ever, however old",
            reason="generation",
        )
    return generation


def _register(text: str) -> tuple[int, bytes | None]:
    """Return the register and the value in N=HEX; no value if N stands alone. Raises `UsageError` (`pcr`)."""
    number, given, value = text.partition("=")
    if REGISTER.fullmatch(number):
        if not given:
            return int(number), None
        if value == "0" or _VALUE.fullmatch(value):
            return int(number), bytes(_PCR_BYTES) if value == "0" else bytes.fromhex(value)
    raise UsageError(
        f"{text!r} is no register and value",
        resolution=f"write N or N=HEX: N from 0 to 23, HEX of {2 * _PCR_BYTES} digits, or 0 for zeros",
        reason="pcr",
    )


def _bundle_files(order: Order, states: Sequence[State]) -> Mapping[str, bytes]:
    from cfsbuild.trust import sealing  # noqa: PLC0415

    if order.public is not None and order.private is None:
        raise UsageError(
            "approving states needs the private policy key",
            resolution="name the .key file",
            reason="policy-key",
        )
    terms = sealing.Terms(states=states, generation=order.generation, policy_key=order.private, pin=order.pin)
    if order.choice.policy_only:
        return sealing.approve_policies(order.name, order.machines, terms)
    return sealing.seal_bundle(order.envelope, name=order.name, enrolments=order.machines, terms=terms)


def _credential_files(order: Order) -> Mapping[str, bytes]:
    from cfsbuild.trust import sealing  # noqa: PLC0415

    return sealing.seal_for_systemd(
        order.envelope,
        name=order.name,
        enrolments=order.machines,
        values=order.values,
        kernels=order.kernels,
        signer=order.public,
        private=order.private,
    )


def _stem(bundle: Path) -> str:
    """Return a signed document's name without what says that it is one."""
    for suffix in _SIGNED_SUFFIXES:
        if bundle.name.endswith(suffix) and bundle.name != suffix:
            return bundle.name.removesuffix(suffix)
    return bundle.name


def _base(bundle: Path, output: Path | None, choice: Choice) -> Path:
    """Return what the files' names start with. Raises `UsageError` for an output of another kind."""
    suffix = _POLICY_SUFFIX if choice.policy_only else _SUFFIXES[choice.level]
    if output is None:
        return bundle.with_name(_stem(bundle))
    stem = output.name.removesuffix(suffix)
    if not stem or stem == output.name:
        raise UsageError(
            f"{str(output)!r} is no name for what is made",
            details="other files are written beside it, whose names start alike",
            resolution=f"name it NAME{suffix}",
            reason="output",
        )
    return output.with_name(stem)


def _write(base: Path, name: str, files: Mapping[str, bytes]) -> list[str]:
    """Write files that are called by the bundle's name under the name of `base`; return their paths."""
    written = []
    for file, content in files.items():
        path = base.with_name(base.name + file.removeprefix(name))
        write_result(path, content)
        written.append(str(path))
    return written


def _warn(settings: Settings, order: Order, states: Sequence[State]) -> None:
    """Say what the terms do not hold off, where people may think that they do."""
    signed = order.choice.level == "cred" and order.public is not None
    if any((signed or KERNEL_PCR in state) and _SECURE_BOOT_PCR not in state for state in states):
        note(
            settings,
            "note: PCR 11 without PCR 7: another system that boots on the machine can measure the same",
        )
    if order.choice.level == "sealed" and not any(states):
        note(settings, "note: neither --pcr nor --uki: this opens whatever has booted on the machine")
    if order.generation is None and any(machine.counter for machine in order.machines):
        note(settings, "note: no counter: this opens for ever, however old it is")


def _tell(settings: Settings, order: Order, states: int, written: list[str]) -> None:
    from cfsbuild.trust import keys, sealing  # noqa: PLC0415

    result = Sealed(
        name=order.name,
        level=order.choice.level,
        machines=[sealing.machine_id(machine) for machine in order.machines],
        states=states,
        generation=order.generation,
        policy_key=None if order.public is None else keys.key_id(order.public),
        pin=bool(order.pin),
        files=written,
    )
    if settings.json:
        write_json(result)
    else:
        write_lines(written)
