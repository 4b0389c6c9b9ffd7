"""On which line each key of a TOML document is written.

TOML parsers give values without places. This scanner reads just enough TOML 1.1 to know where keys and array
items begin. It never decides whether a document is valid: that is the parser's part. It stops at the first
thing it does not understand, and keys after that are simply not found.

Being linear in the size of the text, it also guards the parser, whose time grows with the square of the
number of parts in dotted keys and whose stack grows with the nesting of values.
"""

from __future__ import annotations

import re

import msgspec

from cfsbuild import limits
from cfsbuild.recipe.marked import Key

DEPTH = 2 * limits.TOML_KEY_PARTS
"""Most parts of a whole key path, tables and array indexes included."""

KEYS = 50_000
"""Most tables, keys and array items in one file."""

_BLANK = re.compile(r"[ \t\r]*+")
_LINES = re.compile(r"(?:[ \t\r\n]++|#[^\n]*+)*+")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]++")
_BASIC = re.compile(r'"((?:[^"\\\n]++|\\.)*+)"')
_LITERAL = re.compile(r"'([^'\n]*+)'")
_LONG_BASIC = re.compile(r'"""(?:[^"\\]++|\\.|"(?!""))*+"""(?:"{0,2})', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''(?:[^']++|'(?!''))*+'''(?:'{0,2})")
_PLAIN = re.compile(r"[^,\]}#\n]++")
_SIMPLE_LINE = re.compile(r"""([A-Za-z0-9_-]++)[ \t]*+=[ \t]*+(?:"[^"\\\n]++"|[^"'\[{,\]}#\n]++)(?=\n|\Z)""")
"""The commonest line, a bare key and a value on it: read in one step."""
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"', "\\": "\\"}


class Lines(msgspec.Struct, frozen=True):
    """What was found: the line (1-based) of every key path, and where a limit was exceeded, if anywhere."""

    found: dict[Key, int]
    refused: str = ""
    refused_line: int = 0


class _Stop(Exception):  # noqa: N818 (not an error: the scanner goes no further)
    """The text is not what was expected here, or exceeds a limit (then with a reason)."""


def find_lines(text: str) -> Lines:
    """Return the lines of all keys of a TOML document. Never raises, whatever `text` is."""
    scanner = _Scanner(text)
    try:
        scanner.document()
    except _Stop as stop:
        return Lines(scanner.found, str(stop), scanner.line_here() if str(stop) else 0)
    return Lines(scanner.found)


class _Scanner:
    """Position in the text, and what has been found before it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.found: dict[Key, int] = {}
        self._line = 1
        self._counted = 0
        self._arrays: dict[Key, int] = {}

    def line_here(self) -> int:
        """Return the line of the current position, which only ever moves forward."""
        self._line += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._line

    def document(self) -> None:
        """Read everything."""
        table: Key = ()
        while self._skip(_LINES) < len(self.text):
            self._count()
            simple = _SIMPLE_LINE.match(self.text, self.position)
            if simple and len(table) < DEPTH:
                self.found[*table, simple[1]] = self.line_here()
                self.position = simple.end()
                continue
            if self._at("["):
                table = self._header()
            else:
                self._assignment(table)
            self._end_of_line()

    def _count(self) -> None:
        if len(self.found) > KEYS:
            raise _Stop(f"there are more than {KEYS:,} keys and values")

    def _skip(self, pattern: re.Pattern[str]) -> int:
        """Move behind what `pattern`, which also matches nothing, matches here."""
        match = pattern.match(self.text, self.position)
        self.position = match.end() if match else self.position
        return self.position

    def _at(self, start: str) -> bool:
        return self.text.startswith(start, self.position)

    def _expect(self, token: str) -> None:
        if not self._at(token):
            raise _Stop
        self.position += len(token)

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.position)
        if not match:
            raise _Stop
        self.position = match.end()
        return match

    def _end_of_line(self) -> None:
        self._skip(_BLANK)
        if self.position < len(self.text) and not self._at("\n") and not self._at("#"):
            raise _Stop

    def _header(self) -> Key:
        line = self.line_here()
        repeated = self._at("[[")
        self._expect("[[" if repeated else "[")
        parts = self._key()
        self._expect("]]" if repeated else "]")
        table = self._extend((), parts[:-1], line) + parts[-1:]
        if repeated:
            self.found.setdefault(table, line)
            count = self._arrays.get(table, 0)
            self._arrays[table] = count + 1
            table = (*table, count)
        self.found[table] = line
        return table

    def _extend(self, base: Key, parts: Key, line: int) -> Key:
        """Return `base` and `parts` as a path through the newest items of arrays of tables."""
        path = base
        for part in parts:
            path = (*path, part)
            self.found.setdefault(path, line)
            count = self._arrays.get(path)
            if count is not None:
                path = (*path, count - 1)
        return path

    def _assignment(self, table: Key) -> None:
        line = self.line_here()
        parts = self._key()
        self._expect("=")
        path = self._extend(table, parts[:-1], line) + parts[-1:]
        self.found[path] = line
        self._skip(_BLANK)
        self._value(path)

    def _key(self) -> Key:
        """Read a dotted key and the blanks around it."""
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            parts.append(self._key_part())
            if len(parts) > limits.TOML_KEY_PARTS:
                raise _Stop(f"a key has more than {limits.TOML_KEY_PARTS} parts")
            self._skip(_BLANK)
            if not self._at("."):
                return tuple(parts)
            self.position += 1

    def _key_part(self) -> str:
        if self._at('"'):
            return _ESCAPE.sub(_unescape, self._take(_BASIC)[1])
        if self._at("'"):
            return self._take(_LITERAL)[1]
        return self._take(_BARE_KEY)[0]

    def _value(self, path: Key) -> None:
        if len(path) > DEPTH:
            raise _Stop(f"values are nested more than {DEPTH} deep")
        if self._at("["):
            self._array(path)
        elif self._at("{"):
            self._inline_table(path)
        elif self._at('"""'):
            self._take(_LONG_BASIC)
        elif self._at("'''"):
            self._take(_LONG_LITERAL)
        elif self._at('"'):
            self._take(_BASIC)
        elif self._at("'"):
            self._take(_LITERAL)
        else:
            self._take(_PLAIN)

    def _array(self, path: Key) -> None:
        self._expect("[")
        index = 0
        while True:
            self._count()
            self._skip(_LINES)
            if self._at("]"):
                break
            item = (*path, index)
            self.found[item] = self.line_here()
            self._value(item)
            index += 1
            self._skip(_LINES)
            if not self._at(","):
                break
            self.position += 1
        self._expect("]")

    def _inline_table(self, path: Key) -> None:
        self._expect("{")
        while True:
            self._skip(_LINES)
            if self._at("}"):
                break
            self._assignment(path)
            self._skip(_LINES)
            if not self._at(","):
                break
            self.position += 1
        self._expect("}")


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "xuU" and len(code) > 1:
        number = int(code[1:], 16)
        return chr(number) if number <= 0x10FFFF else code
    return _ESCAPES.get(code, code)
