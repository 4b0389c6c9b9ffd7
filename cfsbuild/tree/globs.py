r"""Globs over tree paths: `match`, `replaces`, `paths` and `attributes` rules.

The language, for one pattern:

* `*` is any run of bytes without a slash, `?` one byte but a slash, `[a-z]` / `[!a-z]` one byte of a set;
* `**` as a whole component is any number of directories; at the end it is everything below;
* `\` takes the next character literally;
* a pattern with a slash at its start or in its middle is anchored at the root; one without matches a name
  at any depth.

A directory that matches does not make what is below it match: `/opt/**` does that. Matching takes time linear
in the path for a given pattern: between two wild cards the leftmost fit is always as good as any other, so
each is an atomic group and nothing is tried twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from cfsbuild.errors import InputError
from cfsbuild.tree.paths import ROOT

if TYPE_CHECKING:
    import re

_SPECIAL = frozenset(b"*?[\\")
_LONGEST_PATTERN = 4096


class Globs:
    """Compiled patterns; call it with a path (bytes, absolute) to learn whether any of them matches."""

    __slots__ = ("_literals", "_match", "patterns")

    def __init__(
        self, patterns: tuple[str, ...], literals: frozenset[bytes], regex: re.Pattern[bytes] | None
    ) -> None:
        self.patterns = patterns
        self._literals = literals
        self._match = regex.fullmatch if regex is not None else None

    def __call__(self, path: bytes) -> bool:
        """Say whether `path` matches one of the patterns."""
        if path in self._literals:
            return True
        return self._match is not None and path != ROOT and self._match(path) is not None

    def select(self, names: Collection[bytes]) -> list[bytes]:
        """Return those of `names` (a set or mapping, of paths) that match; fast where no wild card is."""
        literals = sorted(path for path in self._literals if path in names)
        match = self._match
        if match is None:
            return literals
        return literals + [
            path for path in names if path not in self._literals and path != ROOT and match(path) is not None
        ]

    def __bool__(self) -> bool:
        """Say whether there is any pattern at all."""
        return bool(self.patterns)

    def __repr__(self) -> str:
        return f"Globs({', '.join(map(repr, self.patterns))})"


def compile_globs(patterns: Iterable[str | bytes]) -> Globs:
    """Return a matcher for `patterns`; an empty list matches nothing.

    Raises `InputError` for an empty pattern, an unclosed set, a dangling backslash, a reversed range, and
    for `.`, `..`, NUL or a trailing slash, which no tree path can have.
    """
    texts = tuple(
        pattern.decode("utf-8", "surrogateescape") if isinstance(pattern, bytes) else pattern
        for pattern in patterns
    )
    literals: set[bytes] = set()
    regexes: list[bytes] = []
    for text in texts:
        components = _components(text)
        names = [component for component in components if isinstance(component, bytes)]
        if len(names) == len(components):
            literals.add(b"/" + b"/".join(names))
        else:
            regexes.append(_pattern_regex(components))
    if not regexes:
        return Globs(texts, frozenset(literals), None)
    import re  # noqa: PLC0415 (start-up: most recipes have literal patterns only)

    return Globs(texts, frozenset(literals), re.compile(b"|".join(regexes)))


def literal_glob(path: str) -> str:
    """Return a glob that matches `path` and nothing else."""
    return "".join("\\" + char if char in "*?[\\" else char for char in path)


class _Wild:
    """A component with wild cards, as a regex."""

    __slots__ = ("regex",)

    def __init__(self, regex: bytes) -> None:
        self.regex = regex


_ANY_DIRECTORIES = _Wild(b"")
"""The component `**`: any number of directories."""


def _components(text: str) -> list[bytes | _Wild]:
    """Split a pattern into literal names (unescaped), `**` and wild components."""
    pattern = text.encode("utf-8", "surrogateescape")
    if pattern == ROOT:
        return []
    if not pattern:
        raise InputError("glob is empty", resolution='write "/**" to match everything')
    if len(pattern) > _LONGEST_PATTERN:
        raise InputError(f"glob is {len(pattern)} bytes long, at most {_LONGEST_PATTERN} are allowed")
    if b"\0" in pattern:
        raise InputError(f"glob {text!r} contains a NUL byte")
    if pattern.endswith(b"/"):
        raise InputError(
            f"glob {text!r} ends in a slash",
            resolution=f"write {text.rstrip('/')!r} for the directory, {text + '**'!r} for what is below",
        )
    raw = _split(text, pattern)
    anchored = len(raw) > 1
    if anchored and not raw[0]:
        raw = raw[1:]
    components = [_component(text, part) for part in raw]
    if not anchored:
        components.insert(0, _ANY_DIRECTORIES)
    return [
        component
        for index, component in enumerate(components)
        if component is not _ANY_DIRECTORIES or index == 0 or components[index - 1] is not _ANY_DIRECTORIES
    ]


def _split(text: str, pattern: bytes) -> list[bytes]:
    """Split at slashes; a slash inside a set or after a backslash is an error."""
    parts = pattern.split(b"/")
    for part in parts[1:] if not parts[0] else parts:
        if not part or part in {b".", b".."}:
            raise InputError(f"glob {text!r} contains {repr(part.decode()) if part else 'an empty name'}")
    return parts


def _component(text: str, part: bytes) -> bytes | _Wild:
    """Translate one component."""
    if part == b"**":
        return _ANY_DIRECTORIES
    if not _SPECIAL.intersection(part):
        return part
    runs: list[list[bytes]] = [[]]
    literal = bytearray()
    position = 0
    wild = False
    while position < len(part):
        byte = part[position]
        position += 1
        if byte == 0x2A:
            runs.append([])
            wild = True
            continue
        if byte == 0x5B:
            atom, position = _set(text, part, position)
            wild = True
        elif byte == 0x3F:
            atom = b"[^/]"
            wild = True
        else:
            if byte == 0x5C:
                if position == len(part):
                    raise InputError(f"glob {text!r} has a backslash with nothing after it in its name")
                byte = part[position]
                position += 1
            atom = _quote(byte)
            literal.append(byte)
        runs[-1].append(atom)
    return _Wild(_star_regex(runs)) if wild else bytes(literal)


def _set(text: str, part: bytes, position: int) -> tuple[bytes, int]:
    """Translate a set whose opening bracket stands before `position`; return the regex and where it ends."""
    negated = part[position : position + 1] in {b"!", b"^"}
    position += negated
    end = part.find(b"]", position + 1)
    if end < 0:
        raise InputError(
            f"glob {text!r} has a '[' that is never closed", resolution="write \\[ for the character"
        )
    members = part[position:end]
    regex = bytearray(b"[^/" if negated else b"(?!/)[")
    index = 0
    while index < len(members):
        low = members[index]
        if index + 2 < len(members) and members[index + 1] == 0x2D:
            high = members[index + 2]
            if high < low:
                raise InputError(f"glob {text!r} has the reversed range {chr(low)}-{chr(high)}")
            regex += _quote(low) + b"-" + _quote(high)
            index += 3
        else:
            regex += _quote(low)
            index += 1
    return bytes(regex) + b"]", end + 1


def _quote(byte: int) -> bytes:
    """Return a regex for exactly this byte, good inside sets as well."""
    return b"\\x%02x" % byte


def _star_regex(runs: list[list[bytes]]) -> bytes:
    """Return a regex for atoms separated by `*`, atomic, matching a whole name."""
    first, *rest = [b"".join(run) for run in runs]
    if not rest:
        return first
    middle = b"".join(b"(?>[^/]*?" + run + b")" for run in rest[:-1] if run)
    return b"(?>" + first + middle + b"[^/]*" + rest[-1] + b"(?=/|\\Z))"


def _pattern_regex(components: list[bytes | _Wild]) -> bytes:
    """Join components; each run of components between two `**` is one atomic group."""
    groups: list[bytes] = [b""]
    for component in components:
        if component is _ANY_DIRECTORIES:
            groups.append(b"")
        elif isinstance(component, _Wild):
            groups[-1] += b"/" + component.regex
        else:
            groups[-1] += b"/" + b"".join(map(_quote, component))
    first, *rest = groups
    if not rest:
        return first
    result = first
    for group in rest[:-1]:
        result += b"(?>(?:/[^/]++)*?" + group + b"(?=/|\\Z))"
    last = rest[-1]
    return result + (b"(?:/[^/]++)++" if not last else b"(?>(?:/[^/]++)*?" + last + b"\\Z)")
