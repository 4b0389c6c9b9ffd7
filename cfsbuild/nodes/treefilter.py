"""Which entries of a local directory a `tree` node takes: gitignore-style `include` and `exclude`."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

from cfsbuild.errors import InputError
from cfsbuild.tree.scan import Scan

Matcher = Callable[[str], bool]
"""Takes a path relative to the source, with a slash at the end of a directory's."""


def compile_patterns(lines: Sequence[str]) -> Matcher:
    """Return a matcher for the lines of a gitignore file: the last line that matches decides, `!` negates.

    Raises `InputError` for a line that is no pattern.
    """
    from pathspec import GitIgnoreSpec  # noqa: PLC0415 (only trees with filters)

    try:
        patterns = GitIgnoreSpec.from_lines(lines).patterns
    except ValueError as error:
        raise InputError("not a gitignore pattern", details=str(error)) from error
    rules = [(pattern.regex.match, pattern.include) for pattern in reversed(patterns) if pattern.regex]

    def matches(path: str) -> bool:
        for match, include in rules:
            if match(path):
                return bool(include)
        return False

    return matches


def choose(scan: Scan, include: Sequence[str], exclude: Sequence[str]) -> Sequence[int]:
    """Return the numbers of the entries to take, ascending; the source directory itself (0) is always one.

    What is below an excluded directory is excluded. With `include`, a file is taken when it or a directory
    above it matches, and a directory when it matches or holds something that is taken.
    """
    kept: Sequence[int] = range(len(scan))
    if exclude:
        kept = _not_excluded(scan, compile_patterns(exclude))
    if include:
        kept = _included(scan, kept, compile_patterns(include))
    return kept


def _names(scan: Scan) -> list[str]:
    """Return what patterns are matched against: text, relative, directories with a slash at the end."""
    return [
        os.fsdecode(path[1:]) + "/" if stat.S_ISDIR(mode) else os.fsdecode(path[1:])
        for path, mode in zip(scan.paths, scan.mode, strict=True)
    ]


def _not_excluded(scan: Scan, excluded: Matcher) -> list[int]:
    names = _names(scan)
    parents = scan.parent
    gone = bytearray(len(scan))
    for number in range(1, len(scan)):
        if gone[parents[number]] or excluded(names[number]):
            gone[number] = 1
    return [number for number, left_out in enumerate(gone) if not left_out]


def _included(scan: Scan, kept: Sequence[int], included: Matcher) -> list[int]:
    names = _names(scan)
    parents = scan.parent
    whole = bytearray(len(scan))
    taken = bytearray(len(scan))
    taken[0] = 1
    for number in kept:
        if number and (whole[parents[number]] or included(names[number])):
            whole[number] = 1
            above = number
            while not taken[above]:
                taken[above] = 1
                above = parents[above]
    return [number for number, wanted in enumerate(taken) if wanted]
