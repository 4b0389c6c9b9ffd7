"""Whatever ends a verb early becomes text (or a JSON document) on standard error, and an exit status."""

from __future__ import annotations

import contextlib
import errno
import sys

import click
import msgspec

from cfsbuild.cli.errors_text import error_document, error_text
from cfsbuild.cli.settings import Settings
from cfsbuild.errors import CfsError, StoreError, UsageError

_HINTS = {
    errno.ENOSPC: "free some space (`cfsbuild store gc` removes what is unused), or use another --store",
    errno.EDQUOT: "free some of your quota (`cfsbuild store gc`), or use another --store",
    errno.EACCES: "check the permissions of that path and of the directories above it",
    errno.EPERM: "the kernel allows this only to another user; some verbs need root",
    errno.EROFS: "that file system is mounted read-only; use another --store or output directory",
    errno.ENOENT: "check the spelling; relative paths are relative to the working directory or to -C",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), or lower -j",
    errno.EIO: "the device reports a failure: look at the kernel log, then run `cfsbuild store fsck`",
}


_NO_ARGUMENTS: tuple[type[click.ClickException], ...] = tuple(
    getattr(click.exceptions, name) for name in ("NoArgsIsHelpError",) if hasattr(click.exceptions, name)
)
"""What click 8.2 and later raises for a group without arguments: its help is the message."""


class InternalError(CfsError):
    """A bug in the program itself."""

    exit_code = 70


def settings_of(context: click.Context | None, argv: list[str], error: Exception) -> Settings:
    """Return the global options as far as they are known, also when parsing them is what failed."""
    known = context.obj if context is not None and isinstance(context.obj, Settings) else Settings()
    if not isinstance(error, click.UsageError):
        return known
    before_end = argv[: argv.index("--")] if "--" in argv else argv
    return known._replace(json=known.json or "--json" in before_end)


def report(error: Exception, settings: Settings) -> int:
    """Tell the user about `error`; return the exit status."""
    if isinstance(error, click.Abort):
        return interrupted(130)
    if isinstance(error, _NO_ARGUMENTS) and not settings.json:
        _write(error.format_message())
        return error.exit_code
    expected = as_cfs_error(error)
    if settings.verbose and not isinstance(error, (CfsError, click.ClickException)):
        import traceback  # noqa: PLC0415 (only for -v)

        _write("".join(traceback.format_exception(error)).rstrip())
    if settings.json:
        _write(msgspec.json.encode(_encodable(error_document(expected))).decode())
    else:
        _write(error_text(expected, color=settings.color_on_stderr))
    return expected.exit_code


def interrupted(status: int) -> int:
    """Say that we stopped because we were told to; return `status`."""
    _write("interrupted" if status == 130 else "terminated")
    return status


def as_cfs_error(error: Exception) -> CfsError:
    """Return what `error` means to the user."""
    if isinstance(error, CfsError):
        return error
    if isinstance(error, click.ClickException):
        return _from_click(error)
    if isinstance(error, OSError):
        return _from_os(error)
    return InternalError(
        f"internal error: {type(error).__name__}: {error}".rstrip(": "),
        details="This is a bug in cfsbuild, not something that you did wrong.",
        resolution="run the same command with -v and report its output, the traceback included",
        reason="internal",
    )


def _from_click(error: click.ClickException) -> CfsError:
    message = error.format_message().rstrip(".")
    if isinstance(error, _NO_ARGUMENTS):
        message = "a verb is missing"
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "cfsbuild"
    return UsageError(message, resolution=f"see `{path} --help`", reason="usage")


def _from_os(error: OSError) -> CfsError:
    names = [_text(name) for name in (error.filename, error.filename2) if name is not None]
    where = " -> ".join(names)
    what = error.strerror or str(error) or type(error).__name__
    return StoreError(
        f"{where}: {what}" if where else what,
        resolution=_HINTS.get(error.errno or 0, ""),
        reason=errno.errorcode.get(error.errno or 0, "os"),
    )


def _text(name: object) -> str:
    return name.decode(errors="surrogateescape") if isinstance(name, bytes) else str(name)


def _encodable(value: object) -> object:
    """Replace what UTF-8 cannot hold (undecodable bytes of file names) in all strings of `value`."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value


def _write(text: str) -> None:
    """Write `text` and a newline to standard error; a closed one is no reason to fail in another way."""
    # Standard output may be what went away; the exit status says it even if nobody can hear us.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        print(text.encode(errors="backslashreplace").decode(), file=sys.stderr, flush=True)  # noqa: T201
