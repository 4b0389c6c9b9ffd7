"""What stands for a file in the origin of a value that no file holds."""

from __future__ import annotations

COMMAND_LINE = "command line"
"""A variable given with `-o KEY=VALUE`."""

ENVIRONMENT = "environment"
"""A value that an environment variable gave."""
