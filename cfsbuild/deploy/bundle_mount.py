"""From a mount bundle to a mounted image: nothing is mounted that a trusted key did not sign.

The order is that of `docs/formats/mount-bundle.md`: signature, then what was signed is read; name, expiry,
generation; kernel; the image by its own measured digest; contents; what stays writable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cfsbuild.deploy import kernel_features
from cfsbuild.deploy.attach import detach_until, mount_id
from cfsbuild.deploy.bundle_spec import declared_spec
from cfsbuild.deploy.machine_id import keep_machine_id
from cfsbuild.deploy.mount import Mounted, best_verity, mount
from cfsbuild.deploy.spec import MountSpec
from cfsbuild.deploy.state import mount_state, opened_below
from cfsbuild.errors import VerificationError
from cfsbuild.fsverity.algorithm import algorithm_of_digest
from cfsbuild.fsverity.digest import digest_fd
from cfsbuild.trust import bundle as bundles
from cfsbuild.trust.bundle import Bundle, OpenedBundle
from cfsbuild.trust.keys import PublicKey
from cfsbuild.trust.statement import check_is_called, digest_hex


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Whom and what a machine accepts; nothing of it comes from a bundle.

    `revoked` are ids of keys that do not count any more. `least_generation` refuses older bundles where no
    counter does.
    """

    keys: tuple[PublicKey, ...]
    threshold: int = 1
    revoked: tuple[str, ...] = ()
    allow_insecure: bool = False
    name: str | None = None
    least_generation: int = 0


def accept(envelope: bytes, policy: Policy) -> OpenedBundle:
    """Return the bundle in a signed envelope if the machine's policy allows it.

    Raises `VerificationError`, reason `malformed`, `payload-type`, `signature-invalid`, `signature-missing`,
    `signature-threshold`, `key-revoked`, `insecure`, `signature-other-name`, `expired` or `rollback`.
    """
    opened = bundles.verify_bundle(
        envelope,
        policy.keys,
        threshold=policy.threshold,
        revoked=policy.revoked,
        allow_insecure=policy.allow_insecure,
    )
    check_is_called(opened.bundle, policy.name, None)
    bundles.check_not_expired(opened.bundle, int(time.time()))
    bundles.check_generation(opened.bundle, policy.least_generation)
    return opened


def nothing_more() -> None:
    """Do nothing once the image is mounted."""


def mount_accepted(
    bundle: Bundle,
    base: Path,
    target: Path,
    *,
    allow_insecure: bool = False,
    finish: Callable[[], None] = nothing_more,
) -> Mounted:
    """Mount the image of an accepted bundle at `target`; `base` is the file system with objects and state.

    `finish` is called when all is mounted. Raises what it does; `VerificationError`, reason `kernel-feature`,
    `image-missing`, `image-size`, `image-no-verity`, `image-digest` or `state`; `MountError`. Nothing stays
    mounted then.
    """
    if not allow_insecure:
        kernel_features.check_kernel(bundle.kernel)
    spec = mount_spec(bundle, base, allow_insecure=allow_insecure)
    if not spec.digest:
        _check_by_reading(Path(spec.image), bundle)
    before = mount_id(target)
    try:
        with _opened_upper(bundle, base, spec) as opened:
            mounted = mount(opened, target)
        if bundle.state is not None:
            state = bundle.state
            mount_state(target, {"etc": state.etc, "var": state.var}, base, state.directory)
            keep_machine_id(target, state.etc, base, state.directory)
        finish()
        if bundle.verity != "off" and not spec.digest:
            mounted = msgspec.structs.replace(mounted, why_not=best_verity(Path(spec.image))[1])
        return mounted  # noqa: TRY300 (an interruption just before this counts)
    except BaseException:
        detach_until(target, before)
        raise


@contextmanager
def _opened_upper(bundle: Bundle, base: Path, spec: MountSpec) -> Iterator[MountSpec]:
    """Give the spec with its writable directories opened, made if need be, no symbolic link followed.

    They lie on a disk that others may have written to: a link would let the system write elsewhere.
    """
    if bundle.upper is None:
        yield spec
        return
    with (
        opened_below(base, bundle.upper.directory) as upper,
        opened_below(base, bundle.upper.work) as work,
    ):
        yield msgspec.structs.replace(spec, upper=f"/proc/self/fd/{upper}", work=f"/proc/self/fd/{work}")


def mount_spec(bundle: Bundle, base: Path, *, allow_insecure: bool = False) -> MountSpec:
    """Return the mount that a bundle asks for; with `allow_insecure` the kernel checks only what it can.

    Raises `VerificationError`, reason `image-missing` or `image-size`.
    """
    declared = declared_spec(bundle, base)
    digest = digest_hex(bundle.image)
    image = _find_image(bundle, declared.objects, digest)
    checked = bundle.verity != "off"
    if allow_insecure or bundle.verity == "try":
        checked = checked and best_verity(image)[0]
    return msgspec.structs.replace(
        declared,
        image=str(image),
        digest=digest if checked else "",
        verity="require" if checked else "off",
    )


def _find_image(bundle: Bundle, objects: Iterable[str], digest: str) -> Path:
    places = [Path(directory) / digest[:2] / digest[2:] for directory in objects]
    for place in places:
        if place.is_file():
            size = place.stat().st_size
            if size == bundle.image.size:
                return place
            raise VerificationError(
                f"the image of {bundle.name} has another size than was signed",
                details=f"{place}\nsigned   {bundle.image.size} bytes\npresent  {size} bytes",
                reason="image-size",
            )
    raise VerificationError(
        f"the image of {bundle.name} is not here",
        details="looked for " + ", ".join(map(str, places)),
        resolution="copy the store's objects to this machine",
        reason="image-missing",
    )


def _check_by_reading(image: Path, bundle: Bundle) -> None:
    """Compare an image that the kernel cannot vouch for: now it is right, and nobody knows for how long."""
    wanted = bytes.fromhex(digest_hex(bundle.image))
    with image.open("rb") as file:
        found, _ = digest_fd(file.fileno(), algorithm_of_digest(wanted))
    if found != wanted:
        raise VerificationError(
            f"the image of {bundle.name} is not the one that was signed",
            details=f"signed   {wanted.hex()}\npresent  {found.hex()}",
            reason="image-digest",
        )
