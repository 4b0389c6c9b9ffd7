"""The program, also as `python -m cfsbuild`."""

import os
import signal
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process, and end it."""
    # While modules are imported there is nothing to clean up: Ctrl-C ends the process without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cfsbuild.cli.main import main as run  # noqa: PLC0415 (not before)

    status = run()
    # All that was written is flushed, and all that was opened is closed: tidying up memory only takes time.
    os._exit(status)


if __name__ == "__main__":
    main()
