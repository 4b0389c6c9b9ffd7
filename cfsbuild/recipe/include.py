"""Several recipe files as one table: includes and their merge."""

from __future__ import annotations

import os

import msgspec

from cfsbuild.errors import Origin, Problem, RecipeError
from cfsbuild.recipe.marked import Marked
from cfsbuild.recipe.parse import parse, read_text

MOST_FILES = 256
"""Most files that one recipe may read, each counted as often as it is included."""


class Merged(msgspec.Struct, frozen=True):
    """A recipe's table after all includes, and the files that took part, the recipe itself first."""

    table: Marked
    files: tuple[str, ...]
    problems: tuple[Problem, ...] = ()


class _Step(msgspec.Struct, frozen=True):
    """One file on the way from the recipe to the file that is being read; the recipe itself has no origin."""

    real: str
    origin: Origin | None = None


def read_recipe(file: str) -> Merged:
    """Return a recipe file merged over everything that it includes.

    Includes are merged depth-first in the order in which they are listed, then the file itself. Raises
    `RecipeError` for files that cannot be read or parsed, and for cycles.
    """
    reader = _Reader()
    table = reader.read(file, (_Step(os.path.realpath(file)),))
    return Merged(table, tuple(reader.files), tuple(reader.problems))


class _Reader:
    """What has been read so far."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.problems: list[Problem] = []
        self._documents: dict[str, Marked] = {}
        self._count = 0

    def read(self, file: str, chain: tuple[_Step, ...]) -> Marked:
        """Return `file`, the last step of `chain`, merged over its includes."""
        self._count += 1
        origin = chain[-1].origin
        if self._count > MOST_FILES:
            brief = f"more than {MOST_FILES} files are included"
            raise RecipeError((Problem(brief, "", "include each file once", origin),))
        document = self._document(file, origin)
        result: Marked | None = None
        for included, at in _includes(document):
            path = _relative(file, included)
            step = _Step(os.path.realpath(path), at)
            _refuse_cycle(chain, step)
            merged = self.read(path, (*chain, step))
            result = merged if result is None else self._merge(result, merged, ())
        own = Marked(
            document.origin, {key: value for key, value in document.data.items() if key != "include"}
        )
        return own if result is None else self._merge(result, own, ())

    def _document(self, file: str, used_at: Origin | None) -> Marked:
        real = os.path.realpath(file)
        if real not in self._documents:
            self.files[file] = None
            self._documents[real] = parse(read_text(file, used_at=used_at), file)
        return self._documents[real]

    def _merge(self, below: Marked, above: Marked, key: tuple[str, ...]) -> Marked:
        """Lay `above` over `below`: tables merge by key, everything else replaces."""
        if not (isinstance(below.data, dict) and isinstance(above.data, dict)):
            return above
        if len(key) == 2 and key[0] in {"nodes", "targets"}:
            self._check_kind(below, above, key)
        data = dict(below.data)
        for name, value in above.data.items():
            data[name] = self._merge(data[name], value, (*key, name)) if name in data else value
        # A table stands where its last file wrote it: there it can be changed.
        return Marked(above.origin, data)

    def _check_kind(self, below: Marked, above: Marked, key: tuple[str, ...]) -> None:
        old, new = below.get("kind"), above.get("kind")
        if old and new and old.data != new.data:
            self.problems.append(
                Problem(
                    f"`{key[0]}.{key[1]}` changes its kind from `{old.data}` to `{new.data}`",
                    f"first declared at {old.origin}",
                    "give one of them another name",
                    new.origin,
                )
            )


def _includes(document: Marked) -> list[tuple[str, Origin]]:
    value = document.get("include")
    if value is None:
        return []
    items = value.data if isinstance(value.data, list) else [value]
    problems: list[Problem] = []
    for item in items:
        if not isinstance(item.data, str) or not item.data:
            problems.append(
                Problem(
                    "`include` must be a file name or an array of file names",
                    resolution='write include = ["FILE", …]',
                    origin=item.origin,
                )
            )
        elif "{{" in item.data or "{%" in item.data:
            problems.append(
                Problem(
                    "`include` cannot use variables",
                    "files are included before variables are known",
                    "name the file itself",
                    item.origin,
                )
            )
    if problems:
        raise RecipeError(tuple(problems))
    return [(item.data, item.origin) for item in items]


def _relative(file: str, included: str) -> str:
    """Return `included` as seen from the directory of `file`, without detours where that changes nothing."""
    path = os.path.join(os.path.dirname(file), included)  # noqa: PTH118, PTH120 (texts, shown as written)
    tidy = os.path.normpath(path)
    return tidy if os.path.realpath(tidy) == os.path.realpath(path) else path


def _refuse_cycle(chain: tuple[_Step, ...], step: _Step) -> None:
    if all(above.real != step.real for above in chain):
        return
    steps = "\n".join(
        f"{link.origin} includes {os.path.basename(link.real)}"  # noqa: PTH119 (text for people)
        for link in (*chain, step)
        if link.origin
    )
    raise RecipeError(
        (Problem("files include each other in a circle", steps, "remove one of these includes", step.origin),)
    )
