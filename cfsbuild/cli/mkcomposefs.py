"""The front end `mkcomposefs`: the C tool's options, output and exit codes (docs/compat.md)."""

from __future__ import annotations

import getopt
import os
import sys
from pathlib import Path

import msgspec

from cfsbuild.cli.refusal import RefusalError
from cfsbuild.erofs.writer import write_dump, write_image
from cfsbuild.errors import CfsError
from cfsbuild.tree.dump import read_lines

USAGE = """\
Usage: mkcomposefs [OPTIONS] SOURCE IMAGE
Options:
  --digest-store=PATH   Store content files in this directory
  --use-epoch           Make all mtimes zero
  --skip-devices        Don't store device nodes
  --skip-xattrs         Don't store file xattrs
  --user-xattrs         Only store user.* xattrs
  --print-digest        Print the digest of the image
  --print-digest-only   Print the digest of the image, don't write image
  --from-file           The source is a dump file, not a directory
  --min-version=N       Use this minimal format version (default=0)
  --max-version=N       Use this maximum format version (default=1)
  --threads=N           Use this to override the default number of threads used to \
calculate digest and copy files (default={threads})
"""

_OPTIONS = [
    "digest-store=",
    "use-epoch",
    "skip-devices",
    "skip-xattrs",
    "user-xattrs",
    "print-digest",
    "print-digest-only",
    "from-file",
    "min-version=",
    "max-version=",
    "threads=",
]
_LARGEST_FORMAT = 1
_THREADS_MAX = 256


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for. `image` is None when only the digest is wanted; "-" means a stream."""

    source: str
    image: str | None
    formats: tuple[int, int]
    digest_store: str | None
    threads: int
    from_file: bool
    use_epoch: bool
    skip_devices: bool
    skip_xattrs: bool
    user_xattrs: bool
    print_digest: bool


def main(argv: list[str], program_name: str) -> int:
    """Run `mkcomposefs` with the arguments `argv`; returns the exit status, 0 or 1."""
    try:
        request = parse(argv)
        _run(request, program_name)
    except RefusalError as refusal:
        text = f"{refusal}\n" if str(refusal) else ""
        usage = USAGE.format(threads=_processors()) if refusal.usage else ""
        sys.stderr.write(text + usage)
        return 1
    except CfsError as error:
        details = f" ({error.details})" if error.details else ""
        sys.stderr.write(f"{program_name}: {error.brief}{details}\n")
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stderr.write(f"{program_name}: cannot write file: {error.strerror}\n")
        return 1
    return 0


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def parse(argv: list[str]) -> Request:
    """Return what `argv` asks for. Raises `RefusalError`."""
    try:
        pairs, operands = getopt.gnu_getopt(argv, "", _OPTIONS)
    except getopt.GetoptError as error:
        needs_value = f"{error.opt}=" in _OPTIONS and "requires" in error.msg
        raise RefusalError("option needs a value" if needs_value else "", usage=not needs_value) from None
    options = dict(pairs)
    digest_only = "--print-digest-only" in options
    if not operands:
        raise RefusalError("No source path specified", usage=True)
    if len(operands) > 2:
        raise RefusalError("Too many arguments", usage=True)
    if digest_only and len(operands) == 2:
        raise RefusalError("Cannot specify destination path with --print-digest-only", usage=True)
    if not digest_only and len(operands) == 1:
        raise RefusalError("No destination path specified", usage=True)
    return Request(
        source=operands[0],
        image=None if digest_only else operands[1],
        formats=_formats(options.get("--min-version"), options.get("--max-version")),
        digest_store=options.get("--digest-store"),
        threads=_threads(options.get("--threads")),
        from_file="--from-file" in options,
        use_epoch="--use-epoch" in options,
        skip_devices="--skip-devices" in options,
        skip_xattrs="--skip-xattrs" in options,
        user_xattrs="--user-xattrs" in options,
        print_digest=digest_only or "--print-digest" in options,
    )


def _formats(minimum: str | None, maximum: str | None) -> tuple[int, int]:
    """Return the range of format versions. If only one of the two is given, the other counts as 0."""
    if minimum is None and maximum is None:
        return 0, _LARGEST_FORMAT
    smallest = _number("0" if minimum is None else minimum, "Invalid min version")
    largest = _number("0" if maximum is None else maximum, "Invalid max version")
    return smallest, max(smallest, largest)


def _threads(text: str | None) -> int:
    """Return how many threads read files; without an option 0: as many as pay, more than processors."""
    if text is None:
        return 0
    threads = _number(text, "Invalid threads count")
    if threads < 1:
        raise RefusalError(f"Invalid threads count {text}")
    return min(threads, _THREADS_MAX)


def _number(text: str, refusal: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise RefusalError(f"{refusal} {text}")
    return int(text)


def _run(request: Request, program_name: str) -> None:
    """Make the image and put it where it belongs. Raises `RefusalError` and `CfsError`."""
    to_stream = request.image == "-"
    if to_stream and sys.stdout.isatty():
        raise RefusalError(f"{program_name}: stdout is a tty, refusing to use it")
    if request.formats[0] < 0 or request.formats[1] > _LARGEST_FORMAT:
        raise RefusalError(f"{program_name}: cannot write file: Invalid argument")
    image = _from_dump(request, program_name) if request.from_file else _from_directory(request, program_name)
    if to_stream:
        sys.stdout.buffer.write(image)
    elif request.image is not None:
        from cfsbuild.cli.output_file import replace_file  # noqa: PLC0415

        try:
            replace_file(request.image, [image])
        except OSError as error:
            raise RefusalError(f"{program_name}: failed to open output file: {error.strerror}") from error
    if request.print_digest:
        from cfsbuild.fsverity.algorithm import Algorithm  # noqa: PLC0415
        from cfsbuild.fsverity.digest import digest_bytes  # noqa: PLC0415

        sys.stdout.flush()
        sys.stdout.buffer.write(digest_bytes(image, Algorithm.SHA256).hex().encode() + b"\n")


def _from_dump(request: Request, program_name: str) -> bytes:
    """Return the image of a dump file; "-" is standard input."""
    smallest, largest = request.formats
    strict = "CFS_PARSE_STRICT" in os.environ
    try:
        if request.source == "-":
            lines = read_lines(sys.stdin.buffer)
            return write_dump(
                lines, format=smallest, max_format=largest, strict=strict, name="standard input"
            )
        with Path(request.source).open("rb") as file:
            lines = read_lines(file)
            return write_dump(lines, format=smallest, max_format=largest, strict=strict, name=request.source)
    except OSError as error:
        raise RefusalError(f"{program_name}: open `{request.source}`: {error.strerror}") from error


def _from_directory(request: Request, program_name: str) -> bytes:
    """Return the image of a directory on disk, its contents stored if that was asked for."""
    from cfsbuild.cli import directory_dump  # noqa: PLC0415 (pulls in the store)

    if request.skip_xattrs and request.user_xattrs:
        raise RefusalError(f"{program_name}: error accessing {request.source}: Invalid argument")
    try:
        entries = directory_dump.read(
            Path(request.source),
            use_epoch=request.use_epoch,
            skip_devices=request.skip_devices,
            xattrs="none" if request.skip_xattrs else "user" if request.user_xattrs else "all",
            digest_store=None if request.digest_store is None else Path(request.digest_store),
            threads=request.threads,
        )
    except directory_dump.StoreFailedError as error:
        raise RefusalError(f"{program_name}: cannot fill store: {error}") from error
    smallest, largest = request.formats
    return write_image(entries, format=smallest, max_format=largest)
