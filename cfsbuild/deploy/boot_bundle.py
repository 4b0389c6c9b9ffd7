"""A machine that starts from a bundle: whom its initramfs trusts, what its TPM says, what it mounts."""

from __future__ import annotations

import contextlib
import getpass
from collections.abc import Callable, Iterator
from pathlib import Path

from cfsbuild.deploy import by_bundle, early, machine_check, provision
from cfsbuild.deploy.boot_config import BootConfig
from cfsbuild.deploy.bundle_mount import Policy
from cfsbuild.errors import VerificationError
from cfsbuild.trust import enrolment, key_files, keys, process, unsealing
from cfsbuild.trust.bundle import Bundle
from cfsbuild.trust.enrolment import Enrolment
from cfsbuild.trust.keys import PublicKey
from cfsbuild.trust.statement import digest_hex
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.transport import open_transport

_FORFEITED = b"cfsbuild:forfeited"


def enter(
    config: BootConfig, state: Path, root: Path, tell: Callable[[str], None], *, opened_by: Path | None = None
) -> None:
    """Mount the image of the configuration's bundle at `root`; `state` is the file system that has it.

    `opened_by` is the signed bundle where somebody else opened what the configuration names, and no more is
    believed of it than of any other: signature, machine and counter are checked here.

    Raises what `by_bundle` raises, `VerificationError` (reason `no-key`), and what `provision` raises.
    """
    order = by_bundle.Order(
        file=opened_by or state / config.bundle,
        base=state,
        policy=Policy(
            keys=_trusted(config),
            threshold=config.threshold,
            revoked=tuple(map(keys.key_id, _read_keys(Path(config.revoked)))),
            allow_insecure=config.allow_insecure,
            name=config.name,
        ),
        enrolled=_enrolled(config),
        secrets=Path(config.secrets),
    )
    process.forbid_core_dumps()
    tell(f"opening {config.bundle}")
    with _tpm(config) as tpm:
        opened = by_bundle.open_bundle(order, tpm, _ask_pin)
        bundle = opened.bundle
        tell(opened.summary())
        if config.enable_verity:
            _enable_verity(bundle, state, tell)
        if _writes(bundle):
            early.make_writable(state)
        tell(f"mounting image {bundle.image.digest}")
        by_bundle.mount_opened(order, opened, root, tpm)


def _ask_pin() -> bytes:
    try:
        return getpass.getpass("PIN: ").encode()
    except (EOFError, UnicodeError):  # nobody is there, or they typed what is no text
        return unsealing.no_pin()


def forfeit(config: BootConfig) -> None:
    """Let the TPM release nothing more in this boot that is sealed with PCR 15 at zero.

    Whoever gets a shell of the initramfs has the machine in the very state that bundles are sealed to. Raises
    `TpmError`.
    """
    with _tpm(config) as tpm:
        if tpm is not None:
            enrolled = _enrolled(config)
            machine_check.latch(tpm, _FORFEITED, srk_name="" if enrolled is None else enrolled.srk.name)


def _enable_verity(bundle: Bundle, state: Path, tell: Callable[[str], None]) -> None:
    """Turn fs-verity on for all objects, of which the image is one, unless that was done for this image."""
    digest = digest_hex(bundle.image)
    if provision.is_done(state, digest):
        return
    tell("turning fs-verity on")
    with early.writable(state):
        enabled = sum(provision.enable_objects(state / directory) for directory in bundle.objects)
        provision.set_done(state, digest)
    tell(f"turned fs-verity on for {enabled} files")


def _writes(bundle: Bundle) -> bool:
    """Say whether the file system that has the bundle is written to, if only for the machine's identity."""
    return bundle.upper is not None or bundle.state is not None


def _trusted(config: BootConfig) -> tuple[PublicKey, ...]:
    found = _read_keys(Path(config.keys))
    if not found:
        raise VerificationError(
            "this machine trusts no key",
            details=f"there is no {config.keys}/*{key_files.PUBLIC_SUFFIX} in its initramfs",
            reason="no-key",
        )
    return found


def _read_keys(directory: Path) -> tuple[PublicKey, ...]:
    return tuple(map(key_files.read_public_key, key_files.public_keys_in(directory)))


def _enrolled(config: BootConfig) -> Enrolment | None:
    if config.enrolment is None:
        return None
    return enrolment.read(Path(config.enrolment))


@contextlib.contextmanager
def _tpm(config: BootConfig) -> Iterator[Tpm | None]:
    if config.tpm is None:
        yield None
        return
    with Tpm(open_transport(config.tpm)) as tpm:
        yield tpm
