"""Collecting what is wrong with a recipe, and guessing what was meant."""

from __future__ import annotations

from collections.abc import Iterable

from cfsbuild.errors import Problem, RecipeError

MOST_PROBLEMS = 200
"""After this many problems nothing more is looked for: nobody reads on, and guesses take time."""

_LISTED = 12
_COMPARED = 1000


def collect(problems: Iterable[Problem]) -> RecipeError:
    """Return one error that carries every problem once, in the order of files and lines.

    Raises `ValueError` when there are no problems.
    """
    unique = list(dict.fromkeys(problems))
    if not unique:
        raise ValueError("no problems to collect")
    files: dict[str, int] = {}
    for problem in unique:
        if problem.origin:
            files.setdefault(problem.origin.file, len(files))
    unique.sort(key=lambda problem: _place(problem, files))
    return RecipeError(tuple(unique))


def _place(problem: Problem, files: dict[str, int]) -> tuple[int, int]:
    origin = problem.origin
    return (files[origin.file], origin.line) if origin else (-1, 0)


def suggestion(name: str, known: Iterable[str], *, what: str) -> str:
    """Return a resolution for an unknown name: the nearest known one, else the list of all."""
    names = sorted(known)
    if not names:
        return f"there are no {what} here"
    if len(names) <= _COMPARED and len(name) <= _COMPARED:
        import difflib  # noqa: PLC0415 (only when something is wrong)

        near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
        if near:
            return f"did you mean `{near[0]}`?"
    listed = ", ".join(f"`{known_name}`" for known_name in names[:_LISTED])
    more = ", …" if len(names) > _LISTED else ""
    return f"known {what}: {listed}{more}"
