"""Seal a signed bundle to machines that were enrolled: which files come of it, and what is in them.

    NAME.cfsb              the bundle, encrypted to a key that each machine's TPM holds
    NAME.policy.json       when a TPM releases that key
    NAME.unseal.sh         a script that has tpm2-tools release the key; none if there is a PIN
    NAME.cfsb.pub, .priv, .seed    the key, as tpm2_import takes it
    NAME.cred              or all of it as a credential for systemd

Where something differs from machine to machine, its files are called NAME.MACHINE.… (`machine_id`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from cfsbuild.errors import UsageError
from cfsbuild.trust import (
    credential,
    dsse,
    enrolment,
    pcr_signature,
    sealed,
    tools_script,
    uki,
    unseal_policy,
)
from cfsbuild.trust.credential import Conditions
from cfsbuild.trust.enrolment import Enrolment
from cfsbuild.trust.keys import PrivateKey, PublicKey
from cfsbuild.trust.registers import KERNEL_PCR
from cfsbuild.trust.sealed import Recipient
from cfsbuild.trust.tpm import policy
from cfsbuild.trust.tpm.wire import sized
from cfsbuild.trust.unseal_policy import Branch, CounterLimit, UnsealPolicy

MACHINE_DIGITS = 16
TOOLS_SUFFIXES = {"public": ".pub", "duplicate": ".priv", "seed": ".seed"}
"""What tpm2-tools call the parts of a sealed key; after `.cfsb`, since NAME.pub is a public key."""

State = Mapping[int, bytes | None]
"""Registers of the SHA-256 bank, and the value of each; None: what it was when the machine was enrolled."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """When machines may open a bundle: in one of `states`, up to `generation` (None: whatever the counter).

    With a policy key (P-256, RSA-2048) the bundle is sealed to that key, which approves the states, and can
    approve other ones later. `pin` has at most 32 bytes.
    """

    states: Sequence[State] = ({},)
    generation: int | None = None
    policy_key: PrivateKey | None = None
    pin: bytes = b""


def seal_bundle(
    envelope: bytes, *, name: str, enrolments: Sequence[Enrolment], terms: Terms
) -> dict[str, bytes]:
    """Return the files that carry a DSSE envelope to these machines, by name.

    Raises `VerificationError` for what is no envelope, `UsageError` (reason `counter`, `machines`, `policy`,
    `pin`, `slots`, `payload`, `key-algorithm`).
    """
    dsse.decode(envelope)
    documents = _documents(name, enrolments, terms)
    recipients = [
        Recipient(enrolment.key_public(each.srk), unseal_policy.policy_digest(document), terms.pin)
        for each, document in zip(enrolments, documents, strict=True)
    ]
    bundle = sealed.seal(envelope, recipients)
    files = _policy_files(name, enrolments, documents)
    slots = sealed.parse(bundle).slots
    for part, suffix in TOOLS_SUFFIXES.items():
        contents = [sized(getattr(slot, part)) for slot in slots]
        files |= _named(name, enrolments, contents, f"{sealed.SUFFIX}{suffix}")
    return files | {f"{name}{sealed.SUFFIX}": bundle}


def approve_policies(name: str, enrolments: Sequence[Enrolment], terms: Terms) -> dict[str, bytes]:
    """Return new policies only, for bundles that were sealed to the same policy key, by name of the file.

    Raises `UsageError` as `seal_bundle`, and (reason `policy-key`) without a policy key.
    """
    if terms.policy_key is None:
        raise UsageError(
            "without a policy key, a new policy needs a new bundle",
            resolution="seal to a policy key; then it can approve policies later",
            reason="policy-key",
        )
    return _policy_files(name, enrolments, _documents(name, enrolments, terms))


def seal_credential(
    envelope: bytes,
    *,
    name: str,
    enrolments: Sequence[Enrolment],
    state: State,
    signer: PublicKey | None = None,
) -> dict[str, bytes]:
    """Return a DSSE envelope as a systemd credential called `name` for each machine, by name of the file.

    It opens in one state, in which `signer` (RSA-2048) also signed the value of PCR 11.
    Raises `VerificationError` for what is no envelope, and what `credential.encrypt` raises.
    """
    dsse.decode(envelope)
    _check_machines(enrolments)
    made = [
        credential.encrypt(
            envelope,
            name=name,
            parent=enrolment.key_public(each.legacy),
            conditions=Conditions(_values(each, state), signer),
        )
        for each in enrolments
    ]
    return _named(name, enrolments, made, credential.SUFFIX)


class Kernels(msgspec.Struct, frozen=True):
    """Kernel images (PE files) one of which must have booted, until systemd had measured these words."""

    images: Sequence[bytes] = ()
    words: Sequence[str] = ()


def read_kernels(paths: Iterable[Path], phase: str) -> Kernels:
    """Return the kernels in files; `phase` is systemd's words with colons between. Raises as `uki.read`."""
    return Kernels([uki.read(path) for path in paths], phase.split(":") if phase else [])


def boot_states(values: Sequence[tuple[int, bytes | None]], kernels: Kernels) -> list[State]:
    """Return the states in which registers have the values given, and PCR 11 that of a kernel image.

    Raises as `states`, and what `uki.measured_sections` raises.
    """
    booted = [
        (KERNEL_PCR, uki.predict(uki.measured_sections(image), kernels.words)) for image in kernels.images
    ]
    return states(values, booted)


def seal_for_systemd(  # noqa: PLR0913 (whose, under which terms, by which key)
    envelope: bytes,
    *,
    name: str,
    enrolments: Sequence[Enrolment],
    values: Sequence[tuple[int, bytes | None]],
    kernels: Kernels,
    signer: PublicKey | None = None,
    private: PrivateKey | None = None,
) -> dict[str, bytes]:
    """Return credentials, and with a signer a `.pcrsig` for each kernel image, by name of the file.

    With a `signer` PCR 11 is what it signs, now (if it is `private`) or later, and is not in the credential.
    Raises as `seal_credential`, and `UsageError` (reason `branches`) for more than one state.
    """
    if signer is None:
        found = boot_states(values, kernels)
    else:
        found = states(values, [(KERNEL_PCR, b"")] if kernels.images else [])
    if len(found) != 1:
        raise UsageError(
            "a credential opens in one state only",
            resolution="with a policy key, each kernel image has a signature of its own",
            reason="branches",
        )
    state = {number: value for number, value in found[0].items() if value != b""}
    files = seal_credential(envelope, name=name, enrolments=enrolments, state=state, signer=signer)
    if private is not None:
        for number, image in enumerate(kernels.images):
            made = pcr_signature.sign(uki.measured_sections(image), private, paths=[kernels.words])
            files[f"{name}{f'.{number}' if number else ''}{pcr_signature.SUFFIX}"] = made
    return files


def machine_id(machine: Enrolment) -> str:
    """Return how file names call a machine: 16 hex digits of the digest in its storage key's Name."""
    return machine_id_of(bytes.fromhex(machine.srk.name))


def machine_id_of(srk_name: bytes) -> str:
    """Return the same of the Name of a machine's storage key."""
    return srk_name[2:].hex()[:MACHINE_DIGITS]


def states(
    values: Sequence[tuple[int, bytes | None]], kernel_values: Sequence[tuple[int, bytes]] = ()
) -> list[State]:
    """Return the states in which each register has one of the values that are given for it.

    Raises `UsageError` (reason `branches`) for more than eight, `pcr` for a register with two origins.
    """
    choices: dict[int, list[bytes | None]] = {}
    for number, value in (*values, *kernel_values):
        known = choices.setdefault(number, [])
        if value not in known:
            known.append(value)
    if {number for number, _ in values} & {number for number, _ in kernel_values}:
        raise UsageError("a register is given, and follows from a kernel image as well", reason="pcr")
    if math.prod(map(len, choices.values())) > policy.BRANCHES:
        raise UsageError(
            f"these are more than {policy.BRANCHES} states in which to open",
            resolution="seal to a policy key, and approve other states by another policy",
            reason="branches",
        )
    return [dict(zip(choices, chosen, strict=True)) for chosen in itertools.product(*choices.values())]


def _documents(name: str, enrolments: Sequence[Enrolment], terms: Terms) -> list[UnsealPolicy]:
    """Return the policy of each machine."""
    _check_machines(enrolments)
    made: list[UnsealPolicy] = []
    for machine in enrolments:
        counter = _counter_limit(machine, terms.generation)
        branches = [
            Branch({str(number): value.hex() for number, value in _values(machine, state).items()}, counter)
            for state in terms.states
        ]
        document = UnsealPolicy(name=name, branches=branches, auth_value=bool(terms.pin))
        unseal_policy.encode(document)  # raises for what can be no policy
        if terms.policy_key is not None:
            # Machines that have the same states get the same approval: ECDSA makes another one each time.
            same = next((each for each in made if each.branches == branches), None)
            document = same or unseal_policy.approve(document, terms.policy_key)
        made.append(document)
    return made


def _values(machine: Enrolment, state: State) -> dict[int, bytes]:
    """Return what registers of this machine are in a state."""
    values = {}
    for number, value in state.items():
        enrolled = machine.pcrs.get(str(number))
        if value is None and enrolled is None:
            raise UsageError(
                f"the enrolment of {machine_id(machine)} says nothing of PCR {number}",
                resolution="give a value",
                reason="pcr",
            )
        values[number] = bytes.fromhex(enrolled or "") if value is None else value
    return values


def _counter_limit(machine: Enrolment, generation: int | None) -> CounterLimit | None:
    if generation is None:
        return None
    if machine.counter is None:
        raise UsageError(
            f"the machine {machine_id(machine)} was enrolled without a counter",
            resolution="enrol it with one, or let old bundles open for ever: --no-counter",
            reason="counter",
        )
    if generation < 0:
        raise UsageError("a generation is not negative", reason="counter")
    return CounterLimit(machine.counter.index, machine.counter.name, machine.counter.base + generation)


def _check_machines(enrolments: Sequence[Enrolment]) -> None:
    if len({each.srk.name for each in enrolments}) != len(enrolments) or not enrolments:
        raise UsageError("at least one machine must be named, and none twice", reason="machines")


def _policy_files(
    name: str, enrolments: Sequence[Enrolment], documents: Sequence[UnsealPolicy]
) -> dict[str, bytes]:
    """Return one policy for all machines if it is the same for all, else one for each; and their scripts.

    A policy with a PIN has no script: `tools_script.render` says why.
    """
    encoded = [unseal_policy.encode(document) for document in documents]
    if len(set(encoded)) == 1:
        documents, encoded = documents[:1], encoded[:1]
    files = _named(name, enrolments, encoded, unseal_policy.SUFFIX)
    if any(document.auth_value for document in documents):
        return files
    scripts = [tools_script.render(document) for document in documents]
    return files | _named(name, enrolments, scripts, tools_script.SUFFIX)


def _named(
    name: str, enrolments: Sequence[Enrolment], contents: Sequence[bytes], suffix: str
) -> dict[str, bytes]:
    if len(contents) == 1:
        return {f"{name}{suffix}": contents[0]}
    return {
        f"{name}.{machine_id(machine)}{suffix}": content
        for machine, content in zip(enrolments, contents, strict=True)
    }
