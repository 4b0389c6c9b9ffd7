"""What a machine tells whoever started it: JSON documents, one a line, over a virtio port.

The format stands in `docs/formats/boot.md`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from cfsbuild.errors import CfsError, InputError

REPORT_BYTES = 1 << 16

_STEP_CHARACTERS = 200

PORTS = Path("/sys/class/virtio-ports")

_Text = Annotated[str, msgspec.Meta(max_length=1 << 13)]


class BootReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the machine does now; or that it runs the image, that what ran exited, or that it cannot start.

    `status` is the exit status of what ran, 128 and the signal's number if one killed it. `brief`, `details`,
    `reason` and `exit_code` are those of an error; `brief` says also what the machine does now.
    """

    v: Literal[1] = 1
    type: Literal["cfsbuild.boot-report"] = "cfsbuild.boot-report"
    event: Literal["progress", "started", "exited", "failed"]
    status: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0
    brief: _Text = ""
    details: _Text = ""
    reason: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9-]{0,64}\Z")] = ""
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1


def encode(report: BootReport) -> bytes:
    """Return the report as a line."""
    return msgspec.json.encode(report, order="sorted") + b"\n"


def decode(line: bytes) -> BootReport:
    """Return the report in a line from a machine that nobody need trust. Raises `InputError`.

    What could drive a terminal is escaped in its texts.
    """
    if len(line) > REPORT_BYTES:
        raise InputError("the machine's report is too long", reason="boot-report")
    try:
        report = msgspec.json.decode(line, type=BootReport, strict=True)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            "the machine's report is malformed", details=str(error), reason="boot-report"
        ) from error
    return msgspec.structs.replace(report, brief=harmless(report.brief), details=harmless(report.details))


def harmless(text: str) -> str:
    """Return `text` with all that is neither printable nor a newline escaped."""
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode()
        for char in text
    )


def failure(error: Exception) -> BootReport:
    """Return the report of what went wrong: an error of ours, of the operating system, or a bug."""
    if not isinstance(error, (CfsError, OSError)):
        error = InputError(f"internal error: {type(error).__name__}: {error}", reason="internal")
    if isinstance(error, CfsError):
        return BootReport(
            event="failed",
            brief=_text(error.brief, 1000),
            details=_text(error.details, 4000),
            reason=error.reason,
            exit_code=error.exit_code,
        )
    return BootReport(
        event="failed",
        brief=_text(": ".join(filter(None, (str(error.filename or ""), error.strerror or str(error)))), 1000),
        reason="os",
        exit_code=7,
    )


def _text(text: str, limit: int) -> str:
    """Return text that JSON can hold: names of files on the disk need not be UTF-8."""
    return harmless(text.encode(errors="backslashreplace").decode())[:limit]


def mention(text: str, port: int) -> None:
    """Write to a port what the machine does now, unless that would wait. Raises `OSError`."""
    os.set_blocking(port, False)
    try:
        os.write(port, encode(BootReport(event="progress", brief=_text(text, _STEP_CHARACTERS))))
    finally:
        os.set_blocking(port, True)


def open_port(name: str) -> int | None:
    """Return a descriptor to write to the virtio port called `name`; None if there is none.

    Needs /sys and /dev, but no udev. Raises `OSError`.
    """
    device = find_port(name)
    return os.open(device, os.O_WRONLY | os.O_CLOEXEC) if device else None


def find_port(name: str) -> str:
    """Return the device node of the virtio port called `name`, empty if there is none. Raises `OSError`."""
    for entry in sorted(PORTS.glob("vport*")):
        if (entry / "name").read_text(encoding="utf-8", errors="replace").strip() == name:
            return f"/dev/{entry.name}"
    return ""


def send(report: BootReport, port: int | None) -> None:
    """Write a report to a port, if there is one. Raises `OSError`."""
    data = encode(report)
    while data and port is not None:
        data = data[os.write(port, data) :]
