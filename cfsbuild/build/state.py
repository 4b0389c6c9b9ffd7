"""What this user's last build of a recipe did: for `why`, early cutoff and the image step.

A state file lies in the store and speaks of one image of one recipe. It only saves work and explains: a
lost, damaged or foreign one costs a merge, never a wrong image, since every result is looked up by its key.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from cfsbuild.build.keys import digest_of
from cfsbuild.build.reasons import Reason
from cfsbuild.store.replacing import replacing

STATE_VERSION = 1

TREES_KEPT = 256


class OutRecord(msgspec.Struct, frozen=True, array_like=True):
    """A file in the output directory, as it was right after it was written (times in ns, see stat(2)).

    `digest` is the BLAKE3 of its bytes, lower-case hex, of what is no image.
    """

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    digest: str = ""


class LastRun(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a job. `outcome` is `ran`, `cached` or `cut-off`.

    `output` names the layer, tree or image it gave; `reasons` say why it ran when it last ran; `inputs`
    maps the jobs whose output it saw to that output. A target's `reference` and `files` say where its image
    went.
    """

    key: str
    components: dict[str, str]
    output: str
    outcome: str
    seconds: float = 0.0
    reasons: tuple[Reason, ...] = ()
    inputs: dict[str, str] = {}
    reference: str = ""
    files: tuple[OutRecord, ...] = ()


class BuildState(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The document. `trees` maps a digest of layers to the digest of the tree that they merge to."""

    version: int = STATE_VERSION
    image: str = ""
    jobs: dict[str, LastRun] = {}
    trees: dict[str, str] = {}


def state_path(directory: Path, recipe: Path, image: str, output: Path) -> Path:
    """Return where a user's `directory` keeps the state of `image`, built from `recipe` into `output`."""
    identity = "\0".join((str(recipe.resolve()), image, str(output.resolve())))
    return directory / f"build-{digest_of(os.fsencode(identity))[:32]}.json"


def load_state(path: Path) -> BuildState:
    """Return the state kept at `path`; an empty one when there is none that may be trusted."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                return BuildState()
            state = msgspec.json.decode(file.read(), type=BuildState)
    except (FileNotFoundError, msgspec.DecodeError, msgspec.ValidationError):
        return BuildState()
    return state if state.version == STATE_VERSION else BuildState()


def save_state(path: Path, state: BuildState) -> None:
    """Keep `state` at `path`, atomically; not flushed to the disk, since losing it costs little."""
    recent = dict(list(state.trees.items())[-TREES_KEPT:])
    write_atomically(path, msgspec.json.encode(msgspec.structs.replace(state, trees=recent)))


def write_atomically(path: Path, *parts: bytes | bytearray | memoryview) -> None:
    """Replace `path` by a file with the bytes of `parts`; a reader sees the old or the new file, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.writelines(parts)
