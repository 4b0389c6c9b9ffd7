"""What a machine that is tried believes and has: a key made for it, its TPM, a bundle sealed to that TPM.

All of it lies beside the machine's disk, and goes with it: it is worth nothing to any other machine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from cfsbuild.cli.tpms import open_tpm
from cfsbuild.errors import UsageError

if TYPE_CHECKING:
    from cfsbuild.trust.bundle import Bundle
    from cfsbuild.trust.enrolment import Enrolment

SIGNED = "boot.bundle"
SEALED = "boot.cfsb"
CREDENTIAL = "boot.cred"
POLICY = "boot.policy.json"
KEY = "trusted.pub"
ENROLMENT = "enrolment.json"

_PCR_BYTES = 32
_LATCHES = (11, 15)
"""Registers that are zero when the boot agent unseals; 15 is not any more once the image is mounted."""


class Trust(NamedTuple):
    """Files for the disk, files for the initramfs (below /etc/cfsbuild), and the bundle to boot by."""

    disk: dict[str, bytes]
    initramfs: dict[str, bytes]
    bundle: str
    enrolment: str | None


def make_trust(directory: Path, bundle: Bundle, tpm_state: Path | None) -> None:
    """Write to a directory what `read_trust` reads: the bundle is signed by a key that is then forgotten.

    With a TPM the bundle is sealed to it as well, in both forms; the machine's enrolment makes its storage
    key and counter.
    """
    from cfsbuild.trust import bundle as bundles  # noqa: PLC0415 (help needs no cryptography)
    from cfsbuild.trust import dsse, enrolment, key_files, keys, sealing  # noqa: PLC0415

    key = keys.generate(keys.KeyAlgorithm.ED25519)
    envelope = dsse.sign(bundles.payload_type_of(bundle), bundles.encode_bundle(bundle), key)
    files = {SIGNED: envelope, KEY: key_files.public_pem(key.public_key())}
    if tpm_state is not None:
        enrolled = _enrol(tpm_state)
        terms = sealing.Terms(
            states=({number: bytes(_PCR_BYTES) for number in _LATCHES},), generation=bundle.generation
        )
        made = sealing.seal_bundle(envelope, name="boot", enrolments=[enrolled], terms=terms)
        files |= {SEALED: made[SEALED], POLICY: made[POLICY], ENROLMENT: enrolment.encode(enrolled)}
        files |= sealing.seal_credential(envelope, name="boot", enrolments=[enrolled], state=terms.states[0])
    for name, data in files.items():
        (directory / name).write_bytes(data)


def _enrol(state: Path) -> Enrolment:
    from cfsbuild.deploy.software_tpm import switched_on  # noqa: PLC0415 (help needs no cryptography)
    from cfsbuild.trust.counter import DEFAULT_INDEX  # noqa: PLC0415
    from cfsbuild.trust.enrolment import enroll  # noqa: PLC0415

    with (
        tempfile.TemporaryDirectory(prefix="cfsbuild-tpm-") as scratch,
        switched_on(state, Path(scratch)) as name,
        open_tpm(name) as tpm,
    ):
        return enroll(tpm, create_srk=True, counter=DEFAULT_INDEX)


def read_trust(directory: Path, *, tpm: bool, credential: bool = False) -> Trust:
    """Return what lies beside a disk. Without a `tpm` the machine boots by the bundle that is only signed.

    With `credential` it boots by the form that systemd opens. Raises `UsageError` (reason `disk`).
    """
    if not directory.is_dir():
        raise UsageError(
            f"{directory.with_suffix('')} is no disk that --keep made",
            details=f"there is no {directory}, which says whom the machine trusts",
            resolution="name another file: a disk is made where there is none",
            reason="disk",
        )
    try:
        files = {path.name: path.read_bytes() for path in sorted(directory.iterdir())}
        initramfs = {f"keys/{KEY}": files[KEY]}
        disk = {SIGNED: files[SIGNED]}
        if credential or CREDENTIAL in files:
            disk[CREDENTIAL] = files[CREDENTIAL]
        if SEALED in files:
            disk |= {SEALED: files[SEALED], POLICY: files[POLICY]}
        if not tpm or SEALED not in files:
            return Trust(disk, initramfs, SIGNED, None)
        sealed = CREDENTIAL if credential else SEALED
        return Trust(disk, initramfs | {ENROLMENT: files[ENROLMENT]}, sealed, ENROLMENT)
    except (FileNotFoundError, KeyError) as error:
        raise UsageError(
            f"{directory} does not say whom the machine trusts",
            details=f"there is no {error.filename if isinstance(error, OSError) else error.args[0]} in it",
            resolution="remove the disk: a new one is made, with all that belongs to it",
            reason="disk",
        ) from error


def bundle_in(trust: Trust) -> Bundle:
    """Return the bundle on a machine's disk. Raises `VerificationError` for what is none."""
    from cfsbuild.trust import bundle as bundles  # noqa: PLC0415 (help needs no cryptography)
    from cfsbuild.trust import dsse  # noqa: PLC0415

    return bundles.decode_bundle(dsse.unverified(trust.disk[SIGNED])[1])


def bundle_of(document: bytes | None, *, name: str, digest: bytes, image_format: int, size: int) -> Bundle:
    """Return the bundle to boot an image by: what the recipe's bundle says, if it has one.

    Objects lie where the machine's disk has them, and no machine is named: it is the one that is tried.
    """
    from cfsbuild.deploy.state_disk import OBJECTS  # noqa: PLC0415 (help needs no cryptography)
    from cfsbuild.trust import bundle as bundles  # noqa: PLC0415
    from cfsbuild.trust.statement import image_file  # noqa: PLC0415

    if document is not None:
        return msgspec.structs.replace(bundles.decode_bundle(document), objects=[OBJECTS], target=None)
    return bundles.Bundle(
        type=bundles.SECURE,
        name=name,
        version="",
        generation=1,
        image=image_file(digest, image_format, size),
        objects=[OBJECTS],
        verity="require",
        ro=True,
        upper=None,
        state=None,
        kernel=bundles.kernel_features("require"),
        target=None,
        not_after=None,
        secrets={},
    )
