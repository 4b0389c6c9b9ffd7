"""An error as text for people and as a document for programs."""

from __future__ import annotations

import os

from cfsbuild.errors import CfsError, Origin, Problem

ERROR_VERSION = 1

_RED = "\x1b[1;31m"
_CYAN = "\x1b[36m"
_BOLD = "\x1b[1m"
_DIM = "\x1b[2m"
_RESET = "\x1b[0m"

_MOST_SHOWN = 100
"""Problems: an image without its store has one for each file."""

_QUOTE_BYTES = 1 << 20
_QUOTE_WIDTH = 160


def _paint(text: str, style: str, *, color: bool) -> str:
    return f"{style}{text}{_RESET}" if color and text else text


def error_text(error: CfsError, *, color: bool = False) -> str:
    """Return the problems of `error` for a terminal, as many as one would read; no newline at the end."""
    problems = error.problems()
    blocks = [problem_text(problem, color=color) for problem in problems[:_MOST_SHOWN]]
    if len(problems) > _MOST_SHOWN:
        blocks.append(f"{len(problems)} problems, of which {_MOST_SHOWN} are shown; --json tells all")
    elif len(problems) > 1:
        blocks.append(f"{len(problems)} problems")
    return "\n".join(blocks)


def problem_text(problem: Problem, *, color: bool = False, label: str = "error") -> str:
    """Return one problem: origin first, so that terminals link it; the source line; details; a hint."""
    where = f"{from_here(str(problem.origin))}: " if problem.origin else ""
    head = _paint(where, _BOLD, color=color) + _paint(f"{label}:", _RED, color=color)
    lines = [f"{head} {_printable(from_here(problem.brief))}"]
    if problem.origin is not None:
        lines += [_paint(line, _DIM, color=color) for line in _quote(problem.origin)]
    lines += [f"  {line}".rstrip() for line in _printable(from_here(problem.details)).splitlines()]
    if problem.resolution:
        first, *rest = _printable(problem.resolution).splitlines() or [""]
        lines.append(f"  {_paint('hint:', _CYAN, color=color)} {first}")
        lines += [f"        {line}" for line in rest]
    return "\n".join(lines)


def from_here(text: str) -> str:
    """Return `text` with paths below the working directory as one would type them there.

    A plan has absolute paths, since it is remembered and used from other directories.
    """
    try:
        here = os.getcwd().rstrip("/") + "/"  # noqa: PTH109 (text)
    except FileNotFoundError:  # the working directory was removed
        return text
    if here == "/" or here not in text:
        return text
    import re  # noqa: PLC0415 (only for errors)

    return re.sub(rf"(?<![\w/.-]){re.escape(here)}(?=[^\s/])", "", text)


def _printable(text: str) -> str:
    """Return `text` without anything that could drive a terminal: an input's names end up in messages."""
    return "".join(
        char if char.isprintable() or char == "\n" else ("    " if char == "\t" else _escape(char))
        for char in text
    )


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that os.fsdecode could not decode
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _quote(origin: Origin) -> list[str]:
    """Return the line that `origin` names with a caret below its last key; nothing if it cannot be read."""
    if origin.line < 1:
        return []
    text = _source_line(origin.file, origin.line)
    if text is None or not text.strip():
        return []
    text = _printable(text.rstrip("\r\n"))[:_QUOTE_WIDTH]
    column, width = _caret(text, origin.key.rpartition(".")[2])
    gutter = f"{origin.line:>5} | "
    return [gutter + text, " " * 5 + " | " + " " * column + "^" * width]


def _source_line(file: str, number: int) -> str | None:
    try:
        # O_NONBLOCK: what the origin names may be a fifo, which must not hang us.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:  # noqa: PTH123 (a descriptor)
            lines = (stream.read(_QUOTE_BYTES) or b"").split(b"\n")
    except (OSError, ValueError):
        # The quotation is a courtesy: the file may be gone, or the origin may not be a file at all.
        return None
    return lines[number - 1].decode(errors="replace") if number <= len(lines) else None


def _caret(text: str, key: str) -> tuple[int, int]:
    start = text.find(key) if key else -1
    if start >= 0:
        return start, len(key)
    return len(text) - len(text.lstrip()), 1


def error_document(error: CfsError) -> dict[str, object]:
    """Return `error` as plain data (`docs/cli.md`, "Errors")."""
    return {
        "version": ERROR_VERSION,
        "error": {
            "brief": error.brief,
            "reason": error.reason,
            "exit_code": error.exit_code,
            "problems": [_problem_document(problem) for problem in error.problems()],
        },
    }


def _problem_document(problem: Problem) -> dict[str, object]:
    origin = problem.origin
    return {
        "brief": problem.brief,
        "details": problem.details,
        "resolution": problem.resolution,
        "origin": None if origin is None else {"file": origin.file, "line": origin.line, "key": origin.key},
    }
