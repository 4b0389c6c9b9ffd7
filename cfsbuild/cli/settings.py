"""What the global options, the environment and the configuration files say, for the verbs.

Precedence: option, environment (`CFSBUILD_STORE`, `CFSBUILD_JOBS`), `cfsbuild.local.toml`, `cfsbuild.toml`
(both searched from the working directory upward), `$XDG_CONFIG_HOME/cfsbuild/config.toml`,
`/etc/cfsbuild/config.toml`.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar, overload

import click

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Any])

_CHANGES = "__cfsbuild_changes__"
"""The attribute of a verb that changes something, and cannot say what it would change."""

PROGRESS = ("auto", "tty", "plain", "json", "none")
COLOR = ("auto", "always", "never")


class Settings(NamedTuple):
    """The global options. `store` and `jobs` are always set in what `pass_settings` hands to a verb.

    `directory` is where `-C` pointed (the working directory is already there); `progress` is one of
    `PROGRESS`, `color` one of `COLOR`; `verbose` counts the `-v`. `trusted_uids` and `shared_store` come from
    the configuration only; `Store.open` takes them. (A named tuple, since help must not wait for msgspec.)
    """

    store: Path | None = None
    jobs: int | None = None
    json: bool = False
    quiet: bool = False
    verbose: int = 0
    keep_going: bool = False
    dry_run: bool = False
    progress: str = "auto"
    color: str = "auto"
    directory: Path | None = None
    trusted_uids: tuple[int, ...] = ()
    shared_store: bool = False

    @property
    def store_path(self) -> Path:
        """Return the directory of the store to use, which need not exist."""
        return self.store if self.store is not None else resolve(self).store_path

    @property
    def job_count(self) -> int:
        """Return how many things may run at once, at least 1."""
        return self.jobs or os.cpu_count() or 1

    @property
    def color_on_stdout(self) -> bool:
        """Say whether standard output should be coloured."""
        return wants_color(self.color, sys.stdout)

    @property
    def color_on_stderr(self) -> bool:
        """Say whether standard error should be coloured."""
        return wants_color(self.color, sys.stderr)


def wants_color(choice: str, stream: Any) -> bool:  # noqa: ANN401 (any text stream)
    """Say whether `stream` gets colour: `auto` is a terminal, unless NO_COLOR is set or TERM is dumb."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(stream.isatty())


def resolve(settings: Settings) -> Settings:
    """Fill in what no option gave from the environment and the configuration files."""
    from cfsbuild.cli import config  # noqa: PLC0415 (only verbs that run need it)

    found = config.load_config(Path.cwd(), os.environ)
    return settings._replace(
        store=settings.store if settings.store is not None else found.store,
        jobs=settings.jobs or found.jobs,
        trusted_uids=found.trusted_uids,
        shared_store=found.shared_store,
    )


def pass_settings(
    function: Callable[Concatenate[Settings, Parameters], Result],
) -> Callable[Parameters, Result]:
    """Give the decorated verb the `Settings` as its first argument, completed by the configuration."""

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        context = click.get_current_context()
        given = context.obj if isinstance(context.obj, Settings) else Settings()
        if given.dry_run and getattr(call, _CHANGES, False):
            raise click.UsageError(f"`{context.command_path}` has no dry run: it would do what it says")
        return function(resolve(given), *args, **kwargs)

    return call


def _remember(context: click.Context, parameter: click.Parameter, value: Any) -> Any:  # noqa: ANN401
    """Note a global option wherever it stands: in this context for the verb, in the root for errors."""
    if not parameter.name or value is None or value is False or value == 0:
        return value
    for place in {id(where): where for where in (context.find_root(), context)}.values():
        known = place.obj if isinstance(place.obj, Settings) else Settings()
        added = known.verbose + value if parameter.name == "verbose" else value
        place.obj = known._replace(**{parameter.name: added})
    return value


def _option(*declarations: str, **attributes: Any) -> dict[str, Any]:  # noqa: ANN401 (click's own)
    return {"param_decls": declarations, **attributes}


_OPTIONS: dict[str, dict[str, Any]] = {
    "store": _option("--store", metavar="DIR", type=click.Path(path_type=Path), help="The object store."),
    "jobs": _option("-j", "--jobs", metavar="N", type=click.IntRange(min=1), help="Run N things at once."),
    "keep_going": _option(
        "-k", "--keep-going", is_flag=True, help="After a failure do what does not need it."
    ),
    "dry_run": _option("-n", "--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    "quiet": _option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    "verbose": _option("-v", "--verbose", count=True, help="Say more; tracebacks for internal errors."),
    "json": _option("--json", is_flag=True, help="Write JSON for programs instead of text."),
    "progress": _option("--progress", type=click.Choice(PROGRESS), help="How to show progress."),
    "color": _option("--color", type=click.Choice(COLOR), help="When to colour (also: NO_COLOR)."),
}


def _click_option(name: str, *, taken: set[str], hidden: bool) -> click.Option | None:
    attributes = dict(_OPTIONS[name])
    declarations = [text for text in attributes.pop("param_decls") if text not in taken]
    if not declarations:
        return None
    return click.Option(
        [*declarations, name],
        expose_value=False,
        callback=_remember,
        hidden=hidden,
        **attributes,
    )


def global_options(function: Function) -> Function:
    """Add every global option to the decorated group, shown in its help."""
    return _add_options(function, shown=tuple(_OPTIONS))


@overload
def common_options(first: Function, /) -> Function: ...
@overload
def common_options(*shown: str, changes: bool = False) -> Callable[[Function], Function]: ...
def common_options(*shown: Any, changes: bool = False) -> Any:
    """Let a verb take the global options after its name as well as before.

    Bare, or with the names of those that its help lists (`@common_options("json", "jobs")`; the others
    are accepted but hidden; bare lists `--json`). Stands directly below `@click.command`; a flag that the
    verb itself declares stays the verb's. A verb that `changes` something and has no dry run refuses `-n`.
    """
    if len(shown) == 1 and callable(shown[0]):
        return _add_options(shown[0], shown=("json",))

    def add(function: Function) -> Function:
        setattr(function, _CHANGES, changes)
        return _add_options(function, shown=shown)

    return add


def _add_options(function: Function, *, shown: tuple[str, ...]) -> Function:
    params: list[click.Parameter] = getattr(function, "__click_params__", [])
    taken = {text for param in params for text in (*param.opts, *param.secondary_opts)}
    options = [_click_option(name, taken=taken, hidden=name not in shown) for name in _OPTIONS]
    # click reverses this list when the command is made: what comes last is listed first.
    params[:0] = [option for option in reversed(options) if option is not None]
    function.__click_params__ = params  # type: ignore[attr-defined]
    return function
