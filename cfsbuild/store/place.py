"""Where the store is when nobody says so, and whom it trusts: environment and `cfsbuild.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from cfsbuild import limits
from cfsbuild.errors import Origin, Problem, RecipeError, UsageError

CONFIG_NAME = "cfsbuild.toml"


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a project's `cfsbuild.toml` says about the store; other keys of the file belong to others.

    `store` is a path relative to the file. `trusted_uids` are users whose node results are used.
    `shared_store` permits a store whose directory others can write to. `path` is the file, or None.
    """

    store: str | None = None
    trusted_uids: tuple[int, ...] = ()
    shared_store: bool = False
    path: Path | None = None


def load_config(directory: Path) -> StoreConfig:
    """Return the configuration of the project that `directory` lies in: the nearest `cfsbuild.toml` upwards.

    Raises `RecipeError` when the file is no TOML or a value has the wrong type.
    """
    directory = directory.absolute()
    for candidate in (directory, *directory.parents):
        path = candidate / CONFIG_NAME
        if path.is_file():
            return _parse(path)
    return StoreConfig()


def _parse(path: Path) -> StoreConfig:
    import tomli  # noqa: PLC0415 (only for projects that have the file)

    try:
        with path.open("rb") as file:
            data = file.read(limits.TOML_BYTES + 1)
        if len(data) > limits.TOML_BYTES:
            raise ValueError(f"file has more than {limits.TOML_BYTES} bytes")
        config = msgspec.convert(tomli.loads(data.decode()), type=StoreConfig, strict=True)
    except (OSError, ValueError, RecursionError) as error:
        problem = Problem(f"{CONFIG_NAME} is not usable", details=str(error), origin=Origin(str(path)))
        raise RecipeError((problem,), reason="config") from error
    return msgspec.structs.replace(config, path=path)


def default_path(environ: Mapping[str, str], config: StoreConfig | None = None) -> Path:
    """Return where the store is: $CFSBUILD_STORE, else the project's `store`, else below $XDG_DATA_HOME.

    Raises `UsageError` when the user has no home directory to put it in.
    """
    if environ.get("CFSBUILD_STORE"):
        return Path(environ["CFSBUILD_STORE"]).absolute()
    if config is not None and config.store:
        base = config.path.parent if config.path else Path()
        return (base / config.store).absolute()
    data = environ.get("XDG_DATA_HOME", "")
    if data.startswith("/"):
        return Path(data) / "cfsbuild" / "store"
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        raise UsageError(
            "there is no place for a store", resolution="set CFSBUILD_STORE, or HOME", reason="no-home"
        )
    return Path(home) / ".local" / "share" / "cfsbuild" / "store"
