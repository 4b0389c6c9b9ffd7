"""The front end `composefs-info`: the C tool's options, output and exit codes (docs/compat.md)."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator

from cfsbuild import limits
from cfsbuild.cli.refusal import RefusalError
from cfsbuild.errors import CfsError
from cfsbuild.tree.dump import DumpEntry, escape, format_entry

USAGE = "usage: {program} [--basedir=path] [ls|objects|dump|missing-objects|measure-file] IMAGES...\n"

Images = list[str]


def main(argv: list[str], program_name: str) -> int:
    """Run `composefs-info` with the arguments `argv`; returns the exit status, 0 or 1."""
    try:
        _run(argv, program_name)
    except RefusalError as refusal:
        usage = USAGE.format(program=program_name) if refusal.usage else ""
        sys.stdout.flush()
        sys.stderr.write(f"{refusal}\n{usage}")
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stderr.write(f"{program_name}: {error.strerror}\n")
        return 1
    return 0


def _run(argv: list[str], program: str) -> None:
    options, operands = _parse(argv, program)
    filters = [value for option, value in options if option == "--filter"]
    basedirs = [value for option, value in options if option == "--basedir"]
    command, names = _checked(operands, filters, program)
    if command == "measure-file":
        for name in names:
            _write_line(_measure(name, program).hex().encode())
    elif command in _BY_IMAGE:
        for name in names:
            for line in _BY_IMAGE[command](_entries(name, filters, program)):
                _write_line(line)
    else:
        _objects(names, filters, program, None if command == "objects" else basedirs[-1:])


def _checked(operands: list[str], filters: list[str], program: str) -> tuple[str, list[str]]:
    """Return the command and its arguments. Raises `RefusalError` if they make no sense."""
    for name in filters:
        if "/" in name:
            raise RefusalError(f"{program}: Filter must be a single name: {name}")
    if not operands:
        raise RefusalError("No command specified", usage=True)
    command, names = operands[0], operands[1:]
    if command not in {*_BY_IMAGE, "objects", "missing-objects", "measure-file"}:
        raise RefusalError(f"{program}: Unknown command '{command}'")
    if not names:
        what = "files" if command == "measure-file" else "image path"
        raise RefusalError(f"No {what} specified", usage=True)
    return command, names


def _parse(argv: list[str], program: str) -> tuple[list[tuple[str, str]], list[str]]:
    import getopt  # noqa: PLC0415

    try:
        return getopt.gnu_getopt(argv, "", ["basedir=", "filter="])
    except getopt.GetoptError as error:
        if "requires" in error.msg:
            text = f"option '--{error.opt}' requires an argument"
        elif len(error.opt) == 1 and f"-{error.opt}" in "".join(item for item in argv if item[1:2] != "-"):
            text = f"invalid option -- '{error.opt}'"
        elif "must not" in error.msg:
            text = f"option '--{error.opt}' doesn't allow an argument"
        else:
            text = f"unrecognized option '--{error.opt}'"
        raise RefusalError(f"{program}: {text}", usage=True) from None


def _write_line(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")


def _open(name: str, program: str) -> int:
    """Return a descriptor. Raises `RefusalError`, also for a fifo: nobody may ever write to it."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise RefusalError(f"{program}: Failed to open '{name}': {error.strerror}") from error
    status = os.fstat(fd)
    directory = stat.S_ISDIR(status.st_mode)
    if directory or (stat.S_ISFIFO(status.st_mode) and not _is_pipe(status)):
        os.close(fd)
        what = os.strerror(errno.EISDIR) if directory else "Is a fifo"
        raise RefusalError(f"{program}: Failed to open '{name}': {what}")
    os.set_blocking(fd, True)
    return fd


def _is_pipe(status: os.stat_result) -> bool:
    """Say whether a fifo has no name: pipes live in a file system of the kernel's own."""
    ends = os.pipe()
    try:
        return status.st_dev == os.fstat(ends[0]).st_dev
    finally:
        for end in ends:
            os.close(end)


def _entries(name: str, filters: Collection[str], program: str) -> Iterator[DumpEntry]:
    """Yield the entries of the image called `name`. Raises `RefusalError`."""
    from cfsbuild.erofs.reader import read_image  # noqa: PLC0415 (usage errors need no reader)

    try:
        with open(_open(name, program), "rb") as file:
            data = file.read(limits.IMAGE_BYTES + 1)
    except OSError as error:
        raise RefusalError(f"{program}: Failed to open '{name}': {error.strerror}") from error
    if len(data) > limits.IMAGE_BYTES:
        raise RefusalError(f"{program}: Failed to load '{name}': File too large")
    try:
        yield from read_image(data, top_level=[os.fsencode(item) for item in filters]).entries()
    except CfsError as error:
        raise RefusalError(f"{program}: Failed to load '{name}': {error.brief}") from error


# --- commands -----------------------------------------------------------------------------------------------


def _shown(path: bytes) -> bytes:
    """Return `path` as `ls` shows it: escaped as in a dump, but for spaces."""
    return b" ".join(map(escape, path.split(b" ")))


def _ls(entries: Iterator[DumpEntry]) -> Iterator[bytes]:
    for entry in entries:
        line = _shown(entry.path)
        kind = stat.S_IFMT(entry.mode)
        if entry.path == b"/":
            continue
        if kind == stat.S_IFDIR:
            line += b"/\t"
        elif kind == stat.S_IFLNK and entry.hardlink is None:
            line += b"\t-> " + _shown(entry.payload or b"")
        elif kind == stat.S_IFREG and entry.payload and entry.hardlink is None:
            line += b"\t@ " + _shown(entry.payload)
        yield line


def _dump(entries: Iterator[DumpEntry]) -> Iterator[bytes]:
    return map(format_entry, entries)


_BY_IMAGE: dict[str, Callable[[Iterator[DumpEntry]], Iterator[bytes]]] = {"ls": _ls, "dump": _dump}


def _objects(names: Images, filters: Collection[str], program: str, basedir: list[str] | None) -> None:
    """Print the backing paths of all images, sorted; with a `basedir`, those that it lacks."""
    payloads = {
        entry.payload
        for name in names
        for entry in _entries(name, filters, program)
        if entry.payload and stat.S_ISREG(entry.mode) and entry.hardlink is None
    }
    if basedir:
        try:
            fd = os.open(basedir[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise RefusalError(f"{program}: Can't open basedir `{basedir[0]}`: {error.strerror}") from error
        try:
            payloads = {payload for payload in payloads if not _exists(fd, payload)}
        finally:
            os.close(fd)
    for payload in sorted(payloads):
        _write_line(payload)


def _exists(basedir_fd: int, payload: bytes) -> bool:
    """Say whether `basedir` has the object; a path that would lead out of it names none."""
    relative = payload.lstrip(b"/")
    if b".." in relative.split(b"/") or not relative:
        return False
    try:
        os.stat(relative, dir_fd=basedir_fd)
    except OSError:  # unreadable or too long a name: as good as missing
        return False
    return True


def _measure(name: str, program: str) -> bytes:
    """Return the fs-verity SHA-256 digest of a file: the kernel's if it has one, else computed."""
    from cfsbuild.fsverity import digest, kernel  # noqa: PLC0415
    from cfsbuild.fsverity.algorithm import Algorithm  # noqa: PLC0415

    fd = _open(name, program)
    try:
        try:
            measured = kernel.measure(fd)
        except kernel.VerityUnsupported:
            measured = None
        if measured is not None and measured.algorithm is Algorithm.SHA256:
            return measured.digest
        return digest.digest_fd(fd, Algorithm.SHA256)[0]
    except OSError as error:
        raise RefusalError(f"failed to measure '{name}': {error.strerror}") from error
    finally:
        os.close(fd)
