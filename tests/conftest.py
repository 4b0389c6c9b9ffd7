"""What holds for all tests.

Property tests try the same examples in every run; CFSBUILD_EXPLORE=1 lets them look for new ones. And what a
shell lets its background jobs ignore (SIGINT; nohup: SIGHUP) is not ignored: programs are interrupted here.
"""

import os
import signal

from hypothesis import settings

settings.register_profile("repeat", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile("explore" if os.environ.get("CFSBUILD_EXPLORE") == "1" else "repeat")

for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
