"""Sealing a recipe's bundle to the machines that it is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from cfsbuild.errors import Problem, UsageError
from cfsbuild.recipe.types import LocalPath
from cfsbuild.targets.kind import TargetContext
from cfsbuild.trust.registers import REGISTER

if TYPE_CHECKING:
    from cfsbuild.recipe.model import TargetSpec
    from cfsbuild.trust.bundle import Bundle, Machine
    from cfsbuild.trust.enrolment import Enrolment
    from cfsbuild.trust.keys import PrivateKey
    from cfsbuild.trust.sealing import Kernels

Level = Literal["signed", "sealed", "cred"]

_ZEROS = "0"
_ENROLLED = "enrolled"
_PCR_BYTES = 32
_PIN_BYTES = 32

_Value = Annotated[str, Meta(pattern="^(0|enrolled|[0-9a-fA-F]{64})$")]


class SealTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """To which machines a bundle is sealed, and when their TPMs release it."""

    machines: Annotated[
        tuple[LocalPath, ...], Meta(min_length=1, description="What `cfsbuild enroll` said on each machine.")
    ]
    pcrs: Annotated[
        dict[str, _Value | Annotated[tuple[_Value, ...], Meta(min_length=1)]],
        Meta(
            description="Values that registers must have: hex, `0` for zeros, `enrolled` for what it was "
            "when the machine was enrolled; several are a choice."
        ),
    ] = {}
    ukis: Annotated[
        tuple[LocalPath, ...], Meta(description="Kernel images one of which must have booted (PCR 11).")
    ] = ()
    phase: Annotated[str, Meta(description="How far it has booted, for `ukis`.")] = "enter-initrd"
    policy_key: Annotated[
        LocalPath | Literal[""], Meta(description="Private key that approves these states, and later others.")
    ] = ""
    counter: Annotated[
        bool, Meta(description="Whether machines refuse it once their counter is past its generation.")
    ] = True
    pin: Annotated[LocalPath | Literal[""], Meta(description="File with a PIN that is asked for.")] = ""


PATH_KEYS = ("seal.machines", "seal.ukis", "seal.policy_key", "seal.pin")


def check(spec: TargetSpec, level: Level, table: SealTable | None) -> Iterator[Problem]:
    """Find files that are missing, and what does not go together."""
    if (table is not None) != (level != "signed"):
        yield Problem(
            f"level {level!r} {'has' if table else 'needs'} [targets.{spec.name}.seal]"
            + (": it is not sealed" if table else ""),
            resolution='level = "sealed"' if table else "at least: machines = [FILE], as `enroll` wrote it",
            origin=spec.origin_of("seal" if table else "level"),
        )
    if table is None:
        return
    choice = any(isinstance(value, tuple) and len(value) > 1 for value in table.pcrs.values())
    # By a policy key each kernel image gets a signature of its own.
    choice |= len(table.ukis) > 1 and not table.policy_key
    if level == "cred" and (table.pin or choice):
        yield Problem(
            "systemd's credentials know no PIN, and one state only",
            resolution='level = "sealed"',
            origin=spec.origin_of("seal"),
        )
    for key in ("machines", "ukis", "policy_key", "pin"):
        value = getattr(table, key)
        for written in [value] if isinstance(value, str) else value:
            if written and not spec.resolve(f"seal.{key}", written).is_file():
                yield Problem(f"{key}: there is no file {written}", origin=spec.origin_of(f"seal.{key}"))
    for number in table.pcrs:
        if not REGISTER.fullmatch(number):
            yield Problem(
                f"there is no register {number!r}",
                resolution="0 to 23",
                origin=spec.origin_of("seal.pcrs"),
            )


def machine_of(context: TargetContext, table: SealTable) -> Machine | None:
    """Return how the document names the machine; None if it is for several."""
    from cfsbuild.trust.bundle import Counter, Machine  # noqa: PLC0415 (start-up)

    machines = _machines(context, table)
    if len(machines) > 1:
        return None
    (machine,) = machines
    counter = machine.counter if table.counter else None
    named = None if counter is None else Counter(counter.index, counter.name, counter.base)
    return Machine(machine.srk.name, named)


def seal(
    context: TargetContext, level: Level, table: SealTable, bundle: Bundle, envelope: bytes
) -> Mapping[str, bytes]:
    """Return the files that carry a signed bundle to its machines, by name. Raises as `sealing` does."""
    from cfsbuild.trust import sealing  # noqa: PLC0415 (start-up)

    name = context.recipe.image_name
    machines = _machines(context, table)
    key = _policy_key(context, table)
    if level == "cred":
        return sealing.seal_for_systemd(
            envelope,
            name=name,
            enrolments=machines,
            values=_choices(table.pcrs),
            kernels=_kernels(context, table),
            signer=None if key is None else key.public_key(),
            private=key,
        )
    terms = sealing.Terms(
        states=sealing.boot_states(_choices(table.pcrs), _kernels(context, table)),
        generation=bundle.generation if table.counter else None,
        policy_key=key,
        pin=_pin(context, table),
    )
    return sealing.seal_bundle(envelope, name=name, enrolments=machines, terms=terms)


def _machines(context: TargetContext, table: SealTable) -> list[Enrolment]:
    from cfsbuild.trust import enrolment  # noqa: PLC0415 (start-up)

    paths = _paths(context, table, "machines")
    return [enrolment.read(path) for path in paths]


def _kernels(context: TargetContext, table: SealTable) -> Kernels:
    from cfsbuild.trust import sealing  # noqa: PLC0415 (start-up)

    return sealing.read_kernels(_paths(context, table, "ukis"), table.phase)


def _choices(pcrs: Mapping[str, str | tuple[str, ...]]) -> list[tuple[int, bytes | None]]:
    return [
        (int(number), _value(text))
        for number, value in pcrs.items()
        for text in ([value] if isinstance(value, str) else value)
    ]


def _value(text: str) -> bytes | None:
    """Return what a register must have; None for what it had when the machine was enrolled."""
    if text == _ENROLLED:
        return None
    return bytes(_PCR_BYTES) if text == _ZEROS else bytes.fromhex(text)


def _policy_key(context: TargetContext, table: SealTable) -> PrivateKey | None:
    from cfsbuild.trust import key_files  # noqa: PLC0415 (start-up)

    if not table.policy_key:
        return None
    path = context.spec.resolve("seal.policy_key", table.policy_key)
    return key_files.read_private_key(path, lambda: context.passphrase(path))


def _pin(context: TargetContext, table: SealTable) -> bytes:
    from cfsbuild.trust import files  # noqa: PLC0415 (start-up)

    if not table.pin:
        return b""
    path = context.spec.resolve("seal.pin", table.pin)
    pin = files.read_regular(path, limit=_PIN_BYTES + 2, private=True).removesuffix(b"\n").removesuffix(b"\r")
    if not pin or b"\0" in pin:
        raise UsageError(f"{path} has no PIN", resolution=f"1 to {_PIN_BYTES} bytes", reason="pin")
    return pin


def _paths(context: TargetContext, table: SealTable, key: str) -> list[Path]:
    return [context.spec.resolve(f"seal.{key}", written) for written in getattr(table, key)]
