"""`cfsbuild verify BUNDLE`: who signed a mount bundle, and what it says."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.settings import Settings
from cfsbuild.cli.signatures import Trust, revoked_id
from cfsbuild.errors import UsageError

if TYPE_CHECKING:
    from cfsbuild.trust.bundle import OpenedBundle

VERIFIED_VERSION = 1
_BEGINS = b'{"payload":'


class VerifiedBundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle that trusted keys signed; `bundle` is the document (docs/formats/mount-bundle.md)."""

    version: int = VERIFIED_VERSION
    file: str
    ok: bool
    signers: list[str]
    bundle: dict[str, object]


def is_bundle(path: Path) -> bool:
    """Say whether a file claims to be a signed mount bundle."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if file.read(len(_BEGINS)) != _BEGINS:
            return False
    from cfsbuild.deploy.bundle_file import read_envelope  # noqa: PLC0415 (help needs no cryptography)
    from cfsbuild.trust.bundle import is_envelope_of_bundle  # noqa: PLC0415 (help needs no cryptography)

    return is_envelope_of_bundle(read_envelope(path))


def verify_bundle_file(settings: Settings, path: Path, trust: Trust) -> int:
    """Check who signed the bundle in `path` and show it. Raises `VerificationError`, `UsageError`."""
    from cfsbuild.deploy.bundle_file import read_envelope  # noqa: PLC0415 (as above)
    from cfsbuild.trust import bundle as bundles  # noqa: PLC0415 (as above)
    from cfsbuild.trust.key_files import read_public_key  # noqa: PLC0415 (as above)
    from cfsbuild.trust.statement import check_is_called  # noqa: PLC0415 (as above)

    if not trust.keys:
        raise UsageError(
            f"{path} is a mount bundle: it is as good as who signed it",
            resolution="name the public key of who must have: --key PUB",
            reason="no-key",
        )
    if trust.certificate is not None or trust.file is not None:
        raise UsageError(
            "a bundle holds its signatures itself, and no fs-verity signature is made of it", reason="usage"
        )
    trusted = [read_public_key(key) for key in trust.keys]
    opened = bundles.verify_bundle(
        read_envelope(path),
        trusted,
        threshold=trust.threshold or 1,
        revoked=[revoked_id(text) for text in trust.revoked],
        allow_insecure=True,
    )
    check_is_called(opened.bundle, trust.name, trust.version)
    if settings.json:
        document = msgspec.to_builtins(opened.bundle)
        document["secrets"] = sorted(opened.bundle.secrets)
        write_json(VerifiedBundle(file=str(path), ok=True, signers=list(opened.key_ids), bundle=document))
    elif not settings.quiet:
        write_lines(_lines(str(path), opened))
    return 0


def _lines(name: str, opened: OpenedBundle) -> Iterator[str]:
    bundle = opened.bundle
    yield f"{name}: ok"
    yield f"  mounts      {bundle.name} {bundle.version}".rstrip()
    yield f"  generation  {bundle.generation}"
    yield f"  digest      {bundle.image.digest}"
    yield f"  objects     {', '.join(bundle.objects)}"
    yield f"  verity      {bundle.verity}"
    if bundle.upper is not None:
        yield f"  writable    all, in {bundle.upper.directory}"
    elif bundle.state is not None:
        yield f"  writable    /etc {bundle.state.etc}, /var {bundle.state.var}, in {bundle.state.directory}"
    if bundle.target is not None:
        yield f"  machine     {bundle.target.srk}"
    if bundle.not_after is not None:
        yield f"  not after   {_moment(bundle.not_after)}"
    if bundle.secrets:
        yield f"  secrets     {', '.join(sorted(bundle.secrets))}"
    yield from (f"  signed by   {signer}" for signer in opened.key_ids)
    if bundle.verity != "require":
        yield "  warning     the kernel is not asked to check what is read"


def _moment(seconds: int) -> str:
    try:
        return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError):  # after the year 9999
        return f"{seconds} seconds since 1970"
