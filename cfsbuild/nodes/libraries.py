"""Shared libraries of the building machine: where its loader finds what an ELF file names.

As ld.so(8) says, but for what varies by run: no LD_LIBRARY_PATH, no cache, none of the variants for newer
processors (the tree may run on an older one).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from cfsbuild.errors import BuildError, InputError
from cfsbuild.nodes.elf import Elf, read_elf
from cfsbuild.nodes.hostfiles import HostFiles

LOADER_CONFIGURATION = Path("/etc/ld.so.conf")

_STANDARD = ("/lib", "/usr/lib", "/lib64", "/usr/lib64")
_MOST_INCLUDES = 8


class Libraries:
    """Takes ELF files in with everything that they load. `observe` as in `NodeContext`."""

    def __init__(self, files: HostFiles, observe: Callable[[Path], None]) -> None:
        self._files = files
        self._observe = observe
        self._directories: list[str] | None = None
        self._done: set[Path] = set()
        self._loader: Path | None = None
        """That of the last program, which then loads what has none: a module of an interpreter, say."""

    def take(self, path: Path) -> Path:
        """Take in the file `path`, its interpreter and its libraries; return its path without links.

        A script is taken in with what its first line names. Raises `BuildError` for what is not there, and
        for a damaged file.
        """
        real = self._files.take(path)
        if real not in self._done:
            elf = elf_of(path)
            if elf is None:
                self._done.add(real)
                interpreter = _interpreter_of_script(path)
                if interpreter:
                    self.take(Path(interpreter))
            else:
                if elf.interpreter:
                    self._loader = self.take(Path(elf.interpreter))
                self._load(path, real, elf, ())
        return real

    def _load(self, path: Path, real: Path, elf: Elf, inherited: tuple[str, ...]) -> None:
        """Take in the libraries of one object. `inherited` are the RPATHs of those that load it."""
        if real in self._done:
            return
        self._done.add(real)
        own = () if elf.runpath else tuple(_expanded(elf.rpath, path))
        for name in elf.needed:
            found = self._find(name, elf, path, own + inherited)
            library = elf_of(found)
            if library is None:  # it was one when it was found
                raise BuildError(f"{found} changed while it was read", reason="source-changed")
            loader = self._loader
            if loader is not None and not _finds(
                loader, found, (*own, *inherited, *_expanded(elf.runpath, path))
            ):
                self._files.link(str(loader.parent / name), str(found))
            self._load(found, self._files.take(found), library, own + inherited)

    def _find(self, name: str, elf: Elf, path: Path, rpath: tuple[str, ...]) -> Path:
        if "/" in name:
            return Path(name)
        own = () if self._loader is None else (str(self._loader.parent),)
        places = (*rpath, *_expanded(elf.runpath, path), *self._configured(), *own, *_STANDARD)
        searched = list(dict.fromkeys(places))
        for directory in searched:
            candidate = Path(directory, name)
            self._observe(candidate)
            if candidate.is_file():
                found = elf_of(candidate)
                if found is not None and found.platform == elf.platform:
                    return candidate
        raise BuildError(
            f"library {name}, which {path} loads, is not on this machine",
            details="searched: " + " ".join(searched),
            resolution="install the package that has it",
            reason="library-missing",
        )

    def _configured(self) -> list[str]:
        if self._directories is None:
            self._directories = list(self._read_configuration(LOADER_CONFIGURATION, 0))
        return self._directories

    def _read_configuration(self, file: Path, depth: int) -> Iterator[str]:
        self._observe(file)
        try:
            lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:  # musl and others have none
            return
        for line in lines:
            text = line.partition("#")[0].strip()
            word, _, rest = text.partition(" ")
            if word == "include" and depth < _MOST_INCLUDES:
                pattern = rest.strip()
                base = Path("/") if pattern.startswith("/") else file.parent
                self._observe((base / pattern.lstrip("/")).parent)
                for included in sorted(base.glob(pattern.lstrip("/"))):
                    yield from self._read_configuration(included, depth + 1)
            elif text.startswith("/"):
                yield text


def _finds(loader: Path, library: Path, directories: Collection[str]) -> bool:
    """Say whether a loader without a cache, told of `directories`, finds a library."""
    beside = library.parent.resolve() == loader.parent or library.name == loader.name
    return beside or str(library.parent) in directories


def elf_of(path: Path) -> Elf | None:
    """Return what the ELF file `path` says; None for other files. Raises `BuildError`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BuildError(f"cannot open {path}: {error.strerror}", reason="source") from error
    try:
        return read_elf(fd)
    except InputError as error:
        raise BuildError(f"{path} is damaged", details=error.details, reason=error.reason) from error
    finally:
        os.close(fd)


def _interpreter_of_script(path: Path) -> str:
    with path.open("rb") as file:
        line = file.read(256).partition(b"\n")[0]
    words = line[2:].split() if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def _expanded(directories: Iterable[str], path: Path) -> Iterator[str]:
    """Yield the directories with `$ORIGIN` replaced; those that depend on the processor are left out."""
    for directory in directories:
        text = directory.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", str(path.parent))
        if "$" not in text:
            yield os.path.normpath(text)
