"""The mount bundle: what a machine must know to mount the image, signed; and the same for other programs."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from cfsbuild.errors import Problem, UsageError
from cfsbuild.recipe.types import LocalPath
from cfsbuild.targets import bundle_sealing
from cfsbuild.targets.bundle_sealing import Level, SealTable
from cfsbuild.targets.kind import OutFile, TargetContext, TargetKind, TargetOutput

if TYPE_CHECKING:
    from cfsbuild.recipe.model import Recipe, TargetSpec
    from cfsbuild.trust.bundle import Bundle

DOCUMENT_SUFFIX = ".bundle.json"
SIGNED_SUFFIX = ".bundle"

Verity = Literal["require", "try", "off"]
Writable = Literal["read-only", "transient", "persistent", "bind"]
Rendering = Literal["cmdline", "mount-spec", "pcrlock", "systemd", "initramfs-tools"]
RENDERINGS: tuple[Rendering, ...] = ("cmdline", "mount-spec", "pcrlock", "systemd", "initramfs-tools")

_IDENTIFIER = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"

# As in `trust.bundle`: nothing that has a meaning in shells, units or mount options.
_COMPONENTS = r"(?!\.\.?(/|$))[A-Za-z0-9_.@+-]+(/(?!\.\.?(/|$))[A-Za-z0-9_.@+-]+)*$"
_DevicePath = Annotated[
    str,
    Meta(
        pattern="^" + _COMPONENTS,
        description="A path on the machine that mounts, relative to the file system with its state.",
    ),
]
_DeviceMount = Annotated[str, Meta(pattern="^/" + _COMPONENTS)]


class UpperTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where changes to the whole tree go."""

    directory: _DevicePath
    work: _DevicePath


class StateTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of /etc and /var can be written; `transient` is forgotten, `persistent` is an overlay."""

    etc: Annotated[Writable, Meta(description="What /etc is.")] = "transient"
    var: Annotated[Writable, Meta(description="What /var is.")] = "persistent"
    directory: Annotated[
        _DevicePath, Meta(description="Where the machine keeps what is persistent [state/NAME].")
    ] = ""


class BundleParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mount bundle: name, version and generation, the image's digest, and how it is mounted."""

    generation: Annotated[
        int, Meta(ge=0, le=1 << 53, description="The rollback counter: machines refuse a lower one.")
    ]
    level: Annotated[
        Level, Meta(description="signed; sealed to a machine's TPM; or that as a systemd credential.")
    ] = "signed"
    sign: Annotated[tuple[LocalPath, ...], Meta(description="Private keys that sign it.")] = ()
    objects: Annotated[
        tuple[_DevicePath, ...], Meta(min_length=1, description="Object directories, searched in order.")
    ] = ("objects",)
    verity: Annotated[Verity, Meta(description="What the kernel must check of what is read.")] = "require"
    allow_insecure: Annotated[bool, Meta(description="Allow another `verity` than require, and `upper`.")] = (
        False
    )
    upper: Annotated[UpperTable | None, Meta(description="Makes the whole tree writable.")] = None
    state: Annotated[StateTable | None, Meta(description="What of /etc and /var can be written.")] = None
    not_after: Annotated[str, Meta(description="When it expires: 2027-06-30, or 2027-06-30T12:00:00Z.")] = ""
    seal: Annotated[SealTable | None, Meta(description="To whom it is sealed, and under which terms.")] = None
    secrets: Annotated[
        dict[str, LocalPath], Meta(description="Files that only the machine may read, by name; not `signed`.")
    ] = {}
    render: Annotated[
        tuple[Rendering, ...], Meta(description="Which files for other programs are written too.")
    ] = RENDERINGS
    base: Annotated[
        _DeviceMount,
        Meta(description="Where the machine mounts the file system with its state, for `render`."),
    ] = "/state"
    where: Annotated[_DeviceMount, Meta(description="Where the machine mounts the image, for `render`.")] = (
        "/sysroot"
    )


def check(spec: TargetSpec) -> Iterator[Problem]:
    """Find keys and secrets that are missing, and what contradicts itself."""
    params: BundleParams = spec.params
    for key, paths in (("sign", params.sign), ("secrets", params.secrets.values())):
        for written in paths:
            if not spec.resolve(key, written).is_file():
                yield Problem(f"{key}: there is no file {written}", origin=spec.origin_of(key))
    if params.level != "signed" and not params.sign:
        yield Problem(
            "what is sealed must be signed: everyone can seal to a machine",
            resolution="sign = [KEY]; or, where the key is elsewhere, `cfsbuild sign` and `cfsbuild seal`",
            origin=spec.origin_of("level"),
        )
    yield from bundle_sealing.check(spec, params.level, params.seal)
    yield from _check_secrets(spec, params)
    yield from _check_writable(spec, params)
    try:
        _seconds(params.not_after)
    except (ValueError, OverflowError):
        yield Problem(
            f"not_after is no time: {params.not_after!r}",
            resolution="a date, or a time with its zone: 2027-06-30, 2027-06-30T12:00:00Z",
            origin=spec.origin_of("not_after"),
        )


def _check_secrets(spec: TargetSpec, params: BundleParams) -> Iterator[Problem]:
    if params.secrets and params.level == "signed":
        yield Problem(
            "a bundle that is only signed can be read by everyone: it cannot have secrets",
            resolution='level = "sealed" or "cred"',
            origin=spec.origin_of("secrets"),
        )
    for name in params.secrets:
        if not re.fullmatch(_IDENTIFIER, name):
            yield Problem(
                f"{name!r} cannot be the name of a secret",
                resolution="letters, digits, `.`, `_` and `-`, not first `.` or `-`, at most 64",
                origin=spec.origin_of("secrets"),
            )


def _check_writable(spec: TargetSpec, params: BundleParams) -> Iterator[Problem]:
    """Find what the kernel would not check, and what says twice what can be written."""
    if params.verity != "require" and not params.allow_insecure:
        yield Problem(
            f"with verity = {params.verity!r} the kernel does not check what is read",
            resolution="allow_insecure = true, if that is meant",
            origin=spec.origin_of("verity"),
        )
    if params.upper is None:
        return
    if not params.allow_insecure:
        yield Problem(
            "nobody checks what is written to `upper`, which lies above the whole image",
            resolution="`state` makes /etc and /var writable; allow_insecure = true, if all of it is meant",
            origin=spec.origin_of("upper"),
        )
    if params.state is not None:
        yield Problem(
            "with `upper` all is writable: there is nothing left for `state` to say",
            resolution="leave out one of the two",
            origin=spec.origin_of("state"),
        )


def emit(context: TargetContext, params: BundleParams) -> TargetOutput:
    """Return the bundle's files. Raises `CfsError` for keys that cannot be used."""
    from cfsbuild.targets import renderings  # noqa: PLC0415 (a bundle that is there is not rendered)
    from cfsbuild.trust import bundle as bundles  # noqa: PLC0415 (as above; needs cryptography)

    name = context.recipe.image_name
    bundle = make_bundle(context, params)
    document = bundles.encode_bundle(bundle)
    files = [OutFile(name=f"{name}{DOCUMENT_SUFFIX}", data=document)]
    if params.sign and not params.secrets:
        envelope = _signed(context, params, bundle, f"{name}{SIGNED_SUFFIX}")
        files.insert(0, OutFile(name=f"{name}{SIGNED_SUFFIX}", data=envelope))
    if params.seal is not None:
        secret = bundles.with_secrets(bundle, _secrets(context, params))
        envelope = _signed(context, params, secret, "")
        made = bundle_sealing.seal(context, params.level, params.seal, bundle, envelope)
        sealed = sorted(made, key=lambda file: not file.endswith((".cfsb", ".cred")))
        files = [*(OutFile(name=file, data=made[file]) for file in sealed), *files]
    place = renderings.Place(base=params.base, where=params.where)
    files += [
        OutFile(name=f"{name}.{suffix}", data=text.encode())
        for suffix, text in renderings.render(bundle, place, params.render)
    ]
    return TargetOutput(digest=_digest_of(document), files=tuple(files))


def make_bundle(context: TargetContext, params: BundleParams) -> Bundle:
    """Return the bundle of the recipe's image, without secrets."""
    from cfsbuild.trust import bundle as bundles  # noqa: PLC0415 (needs cryptography)
    from cfsbuild.trust.statement import image_file  # noqa: PLC0415

    recipe = context.recipe
    name = name_of(recipe)
    size = len(context.sink.read_object(context.image))
    state = params.state
    upper = None if params.upper is None else bundles.Upper(params.upper.directory, params.upper.work)
    return bundles.Bundle(
        type=bundles.type_of(params.verity, upper),
        name=name,
        version=recipe.version,
        generation=params.generation,
        image=image_file(context.image, recipe.format, size),
        objects=list(params.objects),
        verity=params.verity,
        ro=params.upper is None,
        upper=upper,
        state=None
        if state is None
        else bundles.State(directory=state.directory or f"state/{name}", etc=state.etc, var=state.var),
        kernel=bundles.kernel_features(params.verity),
        target=None if params.seal is None else bundle_sealing.machine_of(context, params.seal),
        not_after=_seconds(params.not_after),
        secrets={},
    )


def name_of(recipe: Recipe) -> str:
    """Return what an image is called across its versions: the name, and the value of each matrix axis."""
    return "-".join((recipe.name, *recipe.combination.values()))


def _signed(context: TargetContext, params: BundleParams, bundle: Bundle, file: str) -> bytes:
    """Return the envelope with a signature by each key, and with those by others that `file` has."""
    from cfsbuild.errors import VerificationError  # noqa: PLC0415 (as in `emit`)
    from cfsbuild.trust import bundle as bundles  # noqa: PLC0415
    from cfsbuild.trust import dsse, key_files, process  # noqa: PLC0415

    process.forbid_core_dumps()
    payload = bundles.encode_bundle(bundle)
    kind = bundles.payload_type_of(bundle)
    envelope = b""
    for written in params.sign:
        path = context.spec.resolve("sign", written)
        private = key_files.read_private_key(path, lambda path=path: context.passphrase(path))  # type: ignore[misc]
        one = dsse.sign(kind, payload, private)
        envelope = (dsse.merge(envelope, one) or one) if envelope else one
    before = context.existing(file) if file else None
    if before is None:
        return envelope
    try:
        return dsse.merge(before, envelope) or envelope
    except (VerificationError, UsageError):
        # What lies there is no envelope, or a full one: it is replaced.
        return envelope


def _secrets(context: TargetContext, params: BundleParams) -> dict[str, bytes]:
    """Return the content of each secret's file. Raises `UsageError` for one that others can read."""
    from cfsbuild.trust import bundle as bundles  # noqa: PLC0415 (as in `emit`)
    from cfsbuild.trust import files  # noqa: PLC0415

    return {
        name: files.read_regular(
            context.spec.resolve("secrets", written), limit=bundles.SECRET_BYTES, private=True
        )
        for name, written in params.secrets.items()
    }


def _seconds(text: str) -> int | None:
    """Return seconds since 1970 of a date (its end, UTC) or a time with its zone. Raises `ValueError`."""
    if not text:
        return None
    if "T" not in text and " " not in text:
        date = dt.date.fromisoformat(text) + dt.timedelta(days=1)
        return int(dt.datetime.combine(date, dt.time(), dt.UTC).timestamp())
    moment = dt.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("it has no time zone: end it with Z")
    return int(moment.timestamp())


def _digest_of(document: bytes) -> str:
    import hashlib  # noqa: PLC0415 (start-up)

    return hashlib.sha256(document).hexdigest()


KIND = TargetKind(
    name="bundle",
    version=2,
    summary="A mount bundle: what a machine must know to mount the image, signed.",
    params=BundleParams,
    emit=emit,
    check=check,
    path_keys=("sign", "secrets", *bundle_sealing.PATH_KEYS),
    of_image=True,
)
