"""Mounting by a bundle: whom this machine trusts, and what it says when it mounts or refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from cfsbuild.cli.output import note, write_json
from cfsbuild.cli.passphrases import PIN, ask_passphrase, given_passphrase, pin_options
from cfsbuild.cli.settings import Settings
from cfsbuild.cli.signatures import revoked_id
from cfsbuild.cli.tpms import open_tpm
from cfsbuild.errors import UsageError
from cfsbuild.trust.tpm.transport import DEFAULT_NAME

if TYPE_CHECKING:
    from cfsbuild.deploy.bundle_mount import Policy
    from cfsbuild.deploy.mount import Mounted
    from cfsbuild.trust.bundle import OpenedBundle
    from cfsbuild.trust.enrolment import Enrolment
    from cfsbuild.trust.keys import PublicKey
    from cfsbuild.trust.tpm.connection import Tpm

Function = TypeVar("Function", bound=Callable[..., Any])

TRUSTED_KEYS = Path("/etc/cfsbuild/keys")
"""Where a machine keeps the public keys that it trusts when none are named."""

REVOKED_KEYS = Path("/etc/cfsbuild/revoked")
"""Where it keeps those that it trusts no more, whatever is named."""

MOUNTED_VERSION = 1
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class MountedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """What was mounted, and who vouches for it.

    `enforced`: the kernel checks all that is read; `recorded`: the TPM's PCR 15 was extended by it.
    """

    version: int = MOUNTED_VERSION
    name: str
    image_version: str
    generation: int
    digest: str
    keys: list[str]
    target: str
    enforced: bool
    why_not: str = ""
    recorded: bool = False


class BundleChoice(msgspec.Struct, frozen=True, kw_only=True):
    """What the options about a bundle say; the PIN is read when it is needed."""

    file: Path
    base: Path
    keys: tuple[Path, ...]
    revoked: tuple[str, ...]
    threshold: int | None
    name: str | None
    least_generation: int
    allow_insecure: bool
    tpm_name: str | None
    policy: Path | None
    enrolment: Path | None
    secrets: Path | None
    pin_fd: int | None
    pin_file: Path | None


_OPTIONS = (
    click.option(
        "--allow-insecure", is_flag=True, help="Mount although the kernel does not check what is read."
    ),
    click.option(
        "--least-generation",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        help="Refuse bundles of an older generation.",
    ),
    click.option("--name", help="What the bundle's image must be called."),
    click.option(
        "--threshold", metavar="N", type=click.IntRange(min=1), help="How many keys must have signed [1]."
    ),
    click.option(
        "--key",
        "keys",
        metavar="PUB",
        multiple=True,
        type=_FILE,
        help=f"Trust the owner of this public key (may be repeated) [{TRUSTED_KEYS}/*.pub].",
    ),
    click.option(
        "--revoked",
        metavar="PUB|ID",
        multiple=True,
        help=f"Never count this key's signatures (may be repeated) [{REVOKED_KEYS}/*.pub].",
    ),
    click.option(
        "--base",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=Path("/"),
        help="The file system with the objects and the state that the bundle names [/].",
    ),
    click.option(
        "--secrets",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Write the bundle's secrets to DIR, which is in memory.",
    ),
    pin_options,
    click.option(
        "--enrolment",
        metavar="FILE",
        type=_FILE,
        help="What `enroll` said on this machine: bundles are held against its counter.",
    ),
    click.option(
        "--policy", metavar="FILE", type=_FILE, help="The unseal policy [beside it: NAME.policy.json]."
    ),
    click.option(
        "--tpm",
        "tpm_name",
        metavar="TPM",
        help="The TPM: a device, swtpm:HOST:PORT or swtpm:/SOCKET [the machine's, if it has one].",
    ),
    click.option(
        "--bundle",
        metavar="FILE",
        type=_FILE,
        help="Mount what this bundle says, signed (.bundle) and perhaps sealed (.cfsb).",
    ),
)
"""Those that go with `--bundle`, the last one first."""


def bundle_options(function: Function) -> Function:
    """Add the options that go with `--bundle`."""
    for option in _OPTIONS:
        function = option(function)
    return function


def mount_by_bundle(settings: Settings, choice: BundleChoice, directory: Path) -> None:
    """Verify the bundle, mount its image at `directory` and tell; with -n only verify and tell."""
    from cfsbuild.deploy import bundle_mount, by_bundle  # noqa: PLC0415 (help needs no cryptography)
    from cfsbuild.trust.process import forbid_core_dumps  # noqa: PLC0415

    order = by_bundle.Order(
        file=choice.file,
        base=choice.base,
        policy=policy_of(choice),
        unseal_policy=choice.policy,
        enrolled=_enrolment(choice.enrolment),
        secrets=choice.secrets,
    )
    forbid_core_dumps()
    given = given_passphrase(choice.pin_fd, choice.pin_file, PIN)
    with _tpm(choice, needed=order.enrolled is not None) as tpm:
        opened = by_bundle.open_bundle(
            order, tpm, lambda: given or ask_passphrase(choice.file.name, secret=PIN)
        )
        if settings.dry_run:
            spec = bundle_mount.mount_spec(opened.bundle, choice.base, allow_insecure=choice.allow_insecure)
            write_json(spec)
            return
        mounted = by_bundle.mount_opened(order, opened, directory, tpm)
    _tell(settings, opened, mounted, recorded=tpm is not None)


@contextlib.contextmanager
def _tpm(choice: BundleChoice, *, needed: bool) -> Iterator[Tpm | None]:
    """Give the TPM that is named, else the machine's if it has one or one is `needed`."""
    from cfsbuild.deploy.bundle_file import is_sealed  # noqa: PLC0415 (as above)

    name = choice.tpm_name or DEFAULT_NAME
    if choice.tpm_name is None and not needed and not is_sealed(choice.file) and not Path(name).exists():
        yield None
        return
    with open_tpm(name) as tpm:
        yield tpm


def _enrolment(path: Path | None) -> Enrolment | None:
    from cfsbuild.trust import enrolment  # noqa: PLC0415 (as above)

    if path is None:
        return None
    return enrolment.read(path)


def policy_of(choice: BundleChoice) -> Policy:
    """Return whom the options, or else this machine, trust. Raises `UsageError` for nobody."""
    from cfsbuild.deploy.bundle_mount import Policy  # noqa: PLC0415 (help needs no cryptography)
    from cfsbuild.trust.key_files import public_keys_in  # noqa: PLC0415

    return Policy(
        keys=trusted_keys(choice.keys),
        threshold=choice.threshold or 1,
        revoked=tuple(revoked_id(str(key)) for key in (*choice.revoked, *public_keys_in(REVOKED_KEYS))),
        allow_insecure=choice.allow_insecure,
        name=choice.name,
        least_generation=choice.least_generation,
    )


def trusted_keys(paths: tuple[Path, ...]) -> tuple[PublicKey, ...]:
    """Return the keys in `paths`, or else those that this machine trusts."""
    from cfsbuild.trust.key_files import PUBLIC_SUFFIX, public_keys_in, read_public_key  # noqa: PLC0415

    chosen = paths or public_keys_in(TRUSTED_KEYS)
    if not chosen:
        raise UsageError(
            "no key is trusted here",
            details=f"there is no {TRUSTED_KEYS}/*{PUBLIC_SUFFIX}",
            resolution="name the public key of who signs: --key PUB",
            reason="no-key",
        )
    return tuple(read_public_key(path) for path in chosen)


def _tell(settings: Settings, opened: OpenedBundle, mounted: Mounted, *, recorded: bool) -> None:
    bundle = opened.bundle
    if settings.json:
        write_json(
            MountedBundle(
                name=bundle.name,
                image_version=bundle.version,
                generation=bundle.generation,
                digest=bundle.image.digest,
                keys=list(opened.key_ids),
                target=mounted.target,
                enforced=mounted.enforced,
                why_not=mounted.why_not,
                recorded=recorded,
            )
        )
        return
    note(settings, opened.summary())
    if not mounted.enforced:
        note(settings, f"note: the kernel does not check contents here: {mounted.why_not}")
