"""The program, also as `python -m cfsbuild`."""

import signal
import sys


def main() -> int:
    """Run the command line of this process; return its exit status."""
    # While modules are imported there is nothing to clean up: Ctrl-C ends the process without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cfsbuild.cli.main import main as run  # noqa: PLC0415 (not before)

    return run()


if __name__ == "__main__":
    sys.exit(main())
