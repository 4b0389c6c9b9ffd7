"""Property tests try the same examples in every run; CFSBUILD_EXPLORE=1 lets them look for new ones."""

import os

from hypothesis import settings

settings.register_profile("repeat", derandomize=True)
settings.register_profile("explore", print_blob=True)
settings.load_profile("explore" if os.environ.get("CFSBUILD_EXPLORE") == "1" else "repeat")
