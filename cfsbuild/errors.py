"""What can go wrong, as data: every failure that a user can cause or meet is a `CfsError`.

Library code raises; only `cfsbuild.cli` turns an error into terminal text and an exit code.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Origin(msgspec.Struct, frozen=True):
    """Where a value was written: a file, a line (1-based; 0 when unknown), the key path inside the file."""

    file: str
    line: int = 0
    key: str = ""

    def __str__(self) -> str:
        """Return `file:line`, the form that editors and terminals turn into a link."""
        return f"{self.file}:{self.line}" if self.line else self.file


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong with what the user gave: what, more about it, how to mend it, where."""

    brief: str
    details: str = ""
    resolution: str = ""
    origin: Origin | None = None


class CfsError(Exception):
    """Base of all expected failures.

    `brief` is one line without a full stop; `details` may have several; `resolution` says what to do;
    `reason` is a stable machine-readable word. `exit_code` is the process's exit status.
    """

    exit_code: ClassVar[int] = 70

    def __init__(
        self,
        brief: str,
        *,
        details: str = "",
        resolution: str = "",
        origin: Origin | None = None,
        reason: str = "",
    ) -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.resolution = resolution
        self.origin = origin
        self.reason = reason

    def problems(self) -> tuple[Problem, ...]:
        """Return what to show, most useful first; never empty."""
        return (Problem(self.brief, self.details, self.resolution, self.origin),)


class BuildError(CfsError):
    """A node or target could not be produced."""

    exit_code = 1


class UsageError(CfsError):
    """The command line, or an argument of a library call that stands for it, makes no sense."""

    exit_code = 2


class RecipeError(CfsError):
    """A recipe is wrong. Carries every problem that was found, not the first."""

    exit_code = 2

    def __init__(self, problems: tuple[Problem, ...], *, reason: str = "recipe") -> None:
        first = problems[0]
        super().__init__(
            first.brief,
            details=first.details,
            resolution=first.resolution,
            origin=first.origin,
            reason=reason,
        )
        self._problems = problems

    def problems(self) -> tuple[Problem, ...]:
        """Return every problem, in the order of the recipe's lines."""
        return self._problems


class InputError(CfsError):
    """A document from outside (dump, image, archive, layer …) is malformed or exceeds a limit."""

    exit_code = 1


class NotReproducibleError(CfsError):
    """Building twice gave different bytes."""

    exit_code = 4


class VerificationError(CfsError):
    """Something is not what its digest says."""

    exit_code = 5


class StoreError(CfsError):
    """The store, or the file system below it, cannot do what was asked."""

    exit_code = 7


class TpmError(CfsError):
    """The TPM is not there, or answered with something other than what was asked for."""

    exit_code = 7
