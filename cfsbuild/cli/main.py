"""The entry point, and the single place where an error becomes text and an exit status.

Called by the name of a front end (`mkcomposefs`, `composefs-info`, `mount.composefs`) it is that
front end, and click is never imported.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from cfsbuild.cli.signals import Interrupted, Signals, Terminated, interruption_behind
from cfsbuild.cli.streams import discard_output, discard_unwritten, replace_closed
from cfsbuild.cli.verbs import COMPLETE_VARIABLE, FRONT_ENDS, PROGRAM, run_front_end

if TYPE_CHECKING:
    import click

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name; default: the process's own).

    Returns the exit status. Never raises for anything that a user can cause or meet.
    """
    name = PROGRAM
    own_process = argv is None
    if argv is None:
        replace_closed()
        argv = sys.argv[1:]
        name = os.path.basename(sys.argv[0])  # noqa: PTH119 (pathlib costs start-up time)
    signals = Signals()
    try:
        signals.install()
        return _dispatch(name, argv)
    except (Interrupted, Terminated) as ended:
        signals.settle()
        return _ended(ended.status, quiet=_front_end(name, argv) is not None)
    except KeyboardInterrupt:
        # Raised by somebody else's code (a prompt, a test).
        return _ended(EXIT_INTERRUPTED, quiet=False)
    finally:
        signals.at_end = own_process
        if own_process:
            signals.die()
            discard_unwritten()
        else:
            signals.restore()


def _dispatch(name: str, argv: list[str]) -> int:
    """Run the front end or the verb that is asked for."""
    front_end = _front_end(name, argv)
    if front_end is None:
        return _verbs(argv)
    return _guarded_front_end(front_end, argv if name in FRONT_ENDS else argv[1:])


def _front_end(name: str, argv: list[str]) -> str | None:
    """Return the front end that is asked for by the program's name or the first argument."""
    if name in FRONT_ENDS:
        return name
    return argv[0] if argv and argv[0] in FRONT_ENDS else None


def _guarded_front_end(name: str, argv: list[str]) -> int:
    """Run a front end. Its own `main` speaks about errors as the C tool does; this is for what is left."""
    try:
        status = run_front_end(name, argv)
        sys.stdout.flush()
    except BrokenPipeError:
        return _after_broken_pipe()
    except Exception as error:  # noqa: BLE001 (the last line: the C tools end with 1 and one line of text)
        if ended := interruption_behind(error):
            raise ended from None
        sys.stderr.write(f"{name}: {_one_line(error)}\n")
        return 1
    return status


def _one_line(error: Exception) -> str:
    from cfsbuild.errors import CfsError  # noqa: PLC0415 (only when something went wrong)

    if isinstance(error, (CfsError, OSError)):
        return str(error)
    return f"internal error: {type(error).__name__}: {error}"


def _verbs(argv: list[str]) -> int:
    """Run a verb of the click group, and funnel whatever goes wrong."""
    context: click.Context | None = None
    try:
        from cfsbuild.cli import group  # noqa: PLC0415 (front ends do without click; Ctrl-C works while importing)

        if COMPLETE_VARIABLE in os.environ:
            return group.complete(os.environ[COMPLETE_VARIABLE])
        try:
            with group.root.make_context(PROGRAM, list(argv) or ["--help"]) as context:
                result = group.root.invoke(context)
        except group.Exit as done:
            result = done.exit_code
        sys.stdout.flush()
    except BrokenPipeError:
        return _after_broken_pipe()
    except Exception as error:  # noqa: BLE001 (the funnel: every failure ends here, as text and status)
        if ended := interruption_behind(error):
            raise ended from None
        from cfsbuild.cli import funnel  # noqa: PLC0415 (only when something went wrong)

        return funnel.report(error, funnel.settings_of(context, argv, error))
    return result if isinstance(result, int) else 0


def _ended(status: int, *, quiet: bool) -> int:
    """Say that we stopped because we were told to; return `status`.

    Imports nothing: what was interrupted may have been an import, whose modules are half there.
    """
    if not quiet:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("interrupted\n" if status == EXIT_INTERRUPTED else "terminated\n")
            sys.stderr.flush()
    return status


def _after_broken_pipe() -> int:
    """Stop quietly when the reader of our output went away, as a C program killed by SIGPIPE does."""
    discard_output()
    return EXIT_BROKEN_PIPE


if __name__ == "__main__":
    sys.exit(main())
