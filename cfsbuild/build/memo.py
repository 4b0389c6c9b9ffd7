"""The no-change path: everything that a build came from, and everything that it made, is still what it was.

A memo holds the digests of all recipe files, the environment that counts, a signature of each local source,
the plan, and what came out. When all of it still holds, the build is over before anything heavy is
imported. When only sources changed, the plan is taken from the memo.

File: the 8 bytes `CFSMEMO2`, the memo's BLAKE3 (64 hex digits), the memo (msgpack). It lies in the user's
state directory in the store, is written atomically, and is read only by the user who wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

import cfsbuild
from cfsbuild.build.keys import digest_of
from cfsbuild.build.outputs import altered
from cfsbuild.build.result import BuildResult
from cfsbuild.build.sources import Signature, Sources, sign
from cfsbuild.build.state import OutRecord, write_atomically

MAGIC = b"CFSMEMO2"
MEMO_VERSION = 2

_DIGEST = 64
"""Hex digits of a BLAKE3 hash."""

ENVIRONMENT = ("SOURCE_DATE_EPOCH",)
"""Variables that shape what a recipe means."""

TICK_NS = 10**7
"""A file system's clock is at least this fine on Linux (a jiffy is at most 10 ms)."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for: two builds with equal requests share a memo.

    `trusted_uids` and `shared_store` are what `Store.open` takes: whose results count, and whether others may
    write to the store's directory.
    """

    recipe: str
    profiles: tuple[str, ...] = ()
    overrides: dict[str, str] = {}
    store: str
    output: str
    trusted_uids: tuple[int, ...] = ()
    shared_store: bool = False


class SourceRecord(msgspec.Struct, frozen=True, array_like=True):
    """What of a signature is remembered. What was too young to be trusted when it was signed has no data."""

    path: str
    tree: bool = False
    data: bytes | None = None


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """One image: its plan (`job.encode_plan`), what came out, and the files that were written."""

    plan: bytes
    result: BuildResult
    files: tuple[OutRecord, ...]


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a recipe is made of.

    `texts` maps its files to the digests of their bytes, `references` the stored images that it takes in to
    what they stood for. Without `texts` nothing can be remembered.
    """

    texts: dict[str, str] | None
    references: dict[str, str] = {}


class Memo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The document."""

    version: int = MEMO_VERSION
    program: str
    request: Request
    environment: dict[str, str]
    inputs: Inputs
    sources: tuple[SourceRecord, ...]
    built: tuple[Built, ...]


class Recalled(msgspec.Struct, frozen=True, kw_only=True):
    """What a memo is still good for. `results` when nothing changed; else `plans` when the recipe did not."""

    results: tuple[BuildResult, ...] = ()
    plans: tuple[bytes, ...] = ()
    sources: dict[Path, Signature] = {}
    changed: tuple[str, ...] = ()


def program_identity() -> str:
    """Return what tells one installation of this program from another: its version and its files' times."""
    newest = count = 0
    todo = [os.path.dirname(cfsbuild.__file__)]  # noqa: PTH120 (start-up)
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != "__pycache__":
                        todo.append(entry.path)
                elif entry.name.endswith((".py", ".so")):
                    newest = max(newest, entry.stat().st_mtime_ns)
                    count += 1
    return f"{cfsbuild.__version__} {count} {newest}"


def state_directory(request: Request) -> Path:
    """Return this user's directory in the store: `Store.state_path`, without opening the store."""
    return Path(request.store) / "cfsbuild" / "state" / str(os.geteuid())


def memo_path(request: Request) -> Path:
    """Return where the memo for `request` is kept."""
    name = f"memo-{digest_of(repr(request).encode(errors='surrogateescape'))[:32]}"
    return state_directory(request) / name


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return those variables of `environ` that shape what a recipe means."""
    return {name: environ[name] for name in ENVIRONMENT if name in environ}


def recall(request: Request, environ: Mapping[str, str]) -> Recalled:
    """Compare the memo for `request`, if there is one, with what is there now."""
    memo = _load(memo_path(request))
    if (
        memo is None
        or memo.version != MEMO_VERSION
        or memo.request != request
        or memo.environment != environment(environ)
        or memo.program != program_identity()
        or not _texts_hold(memo.inputs.texts)
        or references(request.store, memo.inputs.references) != memo.inputs.references
    ):
        return Recalled()
    sources: dict[Path, Signature] = {}
    changed = []
    for record in memo.sources:
        path = Path(record.path)
        sources[path] = now = sign(path)
        if (now.tree, now.data) != (record.tree, record.data):
            changed.append(record.path)
    plans = tuple(built.plan for built in memo.built)
    if changed or not _outputs_hold(request, memo.built):
        return Recalled(plans=plans, sources=sources, changed=tuple(changed))
    results = tuple(msgspec.structs.replace(built.result, unchanged=True) for built in memo.built)
    return Recalled(results=results, sources=sources)


def remember(
    request: Request,
    environ: Mapping[str, str],
    inputs: Inputs,
    sources: Sources,
    built: Sequence[Built],
) -> bool:
    """Write the memo of a build; if that cannot be, remove what is there and return False.

    It cannot when the recipe may have changed meanwhile, or when a path is not UTF-8 (documents are).

    A source too young to be trusted is noted as changed: the next build looks again, but need not plan.
    """
    path = memo_path(request)
    if inputs.texts is None:
        path.unlink(missing_ok=True)
        return False
    memo = Memo(
        program=program_identity(),
        request=request,
        environment=environment(environ),
        inputs=inputs,
        sources=tuple(
            SourceRecord(str(source)) if known.racy else SourceRecord(str(source), known.tree, known.data)
            for source, known in sources.signatures.items()
        ),
        built=tuple(built),
    )
    try:
        document = msgspec.msgpack.encode(memo)
    except UnicodeEncodeError:
        path.unlink(missing_ok=True)
        return False
    write_atomically(path, MAGIC, digest_of(document).encode(), document)
    return True


def text_digests(files: Sequence[Path], since_ns: int) -> dict[str, str] | None:
    """Return the digests of files that were read after `since_ns`; None if one may have changed since."""
    digests = {}
    for file in files:
        try:
            if file.stat().st_ctime_ns >= since_ns - TICK_NS:
                return None
            digests[str(file)] = digest_of(file.read_bytes())
        except OSError:
            return None
    return digests


def references(store: str, names: Iterable[str]) -> dict[str, str]:
    """Return the digests that references of a store stand for; "" for what is no reference there."""
    found = {}
    for name in names:
        try:
            target = os.readlink(f"{store}/images/refs/{name}")  # noqa: PTH115 (start-up)
        except OSError:
            target = ""
        found[name] = target.rpartition("/")[2]
    return found


def _load(path: Path) -> Memo | None:
    """Return the memo at `path`; None when there is none that may be trusted."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return None
            data = file.read()
        start = len(MAGIC) + _DIGEST
        if data[:start] != MAGIC + digest_of(data[start:]).encode():
            return None
        return msgspec.msgpack.decode(data[start:], type=Memo)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        # No memo, or one of another version of this program: a normal build follows.
        return None


def _texts_hold(texts: Mapping[str, str] | None) -> bool:
    if not texts:
        return False
    for name, digest in texts.items():
        try:
            with open(name, "rb") as file:  # noqa: PTH123 (start-up)
                if digest_of(file.read()) != digest:
                    return False
        except OSError:
            # The file is gone or unreadable: loading the recipe says so better.
            return False
    return True


def _outputs_hold(request: Request, built: Sequence[Built]) -> bool:
    for one in built:
        if altered(Path(request.output), one.files):
            return False
        for image in one.result.images:
            if image.reference and not _image_holds(request.store, image.digest, image.reference):
                return False
    return True


def _image_holds(store: str, digest: str, reference: str) -> bool:
    """Say whether an image is in the store, listed, and what its reference names."""
    try:
        os.stat(f"{store}/images/{digest}")  # noqa: PTH116 (start-up)
        return references(store, [reference]) == {reference: digest}
    except OSError:
        # Removed, by us or by another program: it is built again.
        return False
