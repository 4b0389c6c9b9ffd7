"""Configuration files: strict TOML with `store`, `jobs`, `trusted_uids` and `shared_store`.

A relative `store` is relative to the file that says it; `~` is the home directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cfsbuild import limits
from cfsbuild.errors import Origin, Problem, RecipeError, UsageError
from cfsbuild.store.place import default_path

SYSTEM_CONFIG = Path("/etc/cfsbuild/config.toml")
LOCAL_NAME = "cfsbuild.local.toml"
PROJECT_NAME = "cfsbuild.toml"
JOBS_MAX = 4096


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What environment and files say; `store` is always set, `jobs` only if anything says it."""

    store: Path
    jobs: int | None = None
    trusted_uids: tuple[int, ...] = ()
    shared_store: bool = False
    files: tuple[Path, ...] = ()


class _Keys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    store: str | None = None
    jobs: int | None = None
    trusted_uids: tuple[int, ...] | None = None
    shared_store: bool | None = None


def load_config(directory: Path, environ: Mapping[str, str]) -> Config:
    """Return the configuration that holds for `directory`, the environment's word first.

    Raises `RecipeError` with every problem of every file that takes part, `UsageError` for the environment.
    """
    files = tuple(config_files(directory, environ))
    problems: list[Problem] = []
    found = [(file, _read(file, problems)) for file in files]
    if problems:
        raise RecipeError(tuple(problems), reason="configuration")
    store = next((file.parent / Path(keys.store).expanduser() for file, keys in found if keys.store), None)
    jobs = next((keys.jobs for _, keys in found if keys.jobs), None)
    uids = next((keys.trusted_uids for _, keys in found if keys.trusted_uids is not None), ())
    shared = next((keys.shared_store for _, keys in found if keys.shared_store is not None), False)
    return Config(
        store=default_path(environ, store),
        jobs=_jobs_from_environ(environ) or jobs,
        trusted_uids=uids,
        shared_store=shared,
        files=files,
    )


def config_files(directory: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the configuration files that exist, the one with the last word first."""
    for place in (directory, *directory.parents):
        found = [place / name for name in (LOCAL_NAME, PROJECT_NAME) if (place / name).is_file()]
        if found:
            yield from found
            break
    base = environ.get("XDG_CONFIG_HOME", "")
    user = Path(base) if base.startswith("/") else Path(environ.get("HOME") or "/root") / ".config"
    for file in (user / "cfsbuild" / "config.toml", SYSTEM_CONFIG):
        if file.is_file():
            yield file


def _jobs_from_environ(environ: Mapping[str, str]) -> int | None:
    text = environ.get("CFSBUILD_JOBS", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= JOBS_MAX):
        raise UsageError(
            f"CFSBUILD_JOBS is {text!r}, which is not a number from 1 to {JOBS_MAX}",
            resolution="unset it, or set it to how many things may run at once",
        )
    return int(text)


def _read(file: Path, problems: list[Problem]) -> _Keys:
    """Return the keys of `file`, adding to `problems` what is wrong with it."""
    import tomli  # noqa: PLC0415 (most runs have no configuration file)

    text = file.read_bytes()[: limits.TOML_BYTES + 1]
    if len(text) > limits.TOML_BYTES:
        problems.append(Problem(f"larger than {limits.TOML_BYTES} bytes", origin=Origin(str(file))))
        return _Keys()
    try:
        values = tomli.loads(text.decode())
    except tomli.TOMLDecodeError as error:
        problems.append(Problem(f"not valid TOML: {error.msg}", origin=Origin(str(file), error.lineno)))
        return _Keys()
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        problems.append(Problem("not UTF-8 text", origin=Origin(str(file), line)))
        return _Keys()
    found = list(_problems(file, text.decode(), values))
    problems += found
    return _Keys() if found else msgspec.convert(values, _Keys)


def _problems(file: Path, text: str, values: dict[str, Any]) -> Iterator[Problem]:
    known = list(_Keys.__struct_fields__)
    for key, value in values.items():
        origin = Origin(str(file), _line_of(text, key), key)
        if key not in known:
            import difflib  # noqa: PLC0415 (only to complain)

            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known)}"
            yield Problem(f"unknown key {key!r} in the configuration", resolution=hint, origin=origin)
        elif key == "store" and not (isinstance(value, str) and value):
            yield Problem("store must be a path", resolution='write store = "DIR"', origin=origin)
        elif key == "shared_store" and type(value) is not bool:
            yield Problem("shared_store must be true or false", origin=origin)
        elif key == "trusted_uids" and not _is_uids(value):
            yield Problem("trusted_uids must be a list of user ids", origin=origin)
        elif key == "jobs" and not (type(value) is int and 1 <= value <= JOBS_MAX):
            yield Problem(f"jobs must be a number from 1 to {JOBS_MAX}", origin=origin)


def _is_uids(value: Any) -> bool:  # noqa: ANN401 (whatever TOML can hold)
    return isinstance(value, list) and all(type(uid) is int and 0 <= uid < 2**32 - 1 for uid in value)


def _line_of(text: str, key: str) -> int:
    """Return the line on which the top-level `key` or table is written; 0 when it is not written plainly."""
    for number, line in enumerate(text.splitlines(), 1):
        start = line.strip().lstrip("[").lstrip()
        if start.startswith(key) and start[len(key) :].lstrip()[:1] in {"=", "]", "."}:
            return number
    return 0
