"""Shared libraries of the building machine: where its loader finds what an ELF file names.

As ld.so(8) says, but for what varies by run: no LD_LIBRARY_PATH, no cache, none of the variants for newer
processors (the tree may run on an older one).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import msgspec

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
        self._root = files.root
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
            elf = elf_of(self._root.place(path))
            if elf is None:
                self._done.add(real)
                interpreter = _interpreter_of_script(self._root.place(path))
                if interpreter:
                    self.take(Path(interpreter))
            else:
                if elf.interpreter:
                    self._loader = self.take(Path(elf.interpreter))
                self._done.add(real)
                self._load(path, elf)
        return real

    def take_named(self, name: str, program: Path) -> None:
        """Take in a library that `program` loads while it runs, by the name that it uses.

        Raises `BuildError` as `take` does; for a program that is no ELF file as well (reason `library`).
        """
        elf = elf_of(self._root.place(program))
        if elf is None or not elf.interpreter:
            raise BuildError(f"{self._root.shown(program)} loads no libraries", reason="library")
        # Whatever the program needs itself is there already when it loads more.
        named = msgspec.structs.replace(elf, needed=(*elf.needed, name))
        self._loader = self.take(Path(elf.interpreter))
        self._load(program, named)

    def _load(self, path: Path, elf: Elf) -> None:
        """Take in the libraries of an object, and those of these, in the order of the loader.

        It looks for each name once: what was found for one object serves the others.
        """
        todo: deque[tuple[Path, Elf, tuple[str, ...]]] = deque([(path, elf, ())])
        loaded: set[str] = set()
        while todo:
            path, elf, inherited = todo.popleft()
            rpath = (() if elf.runpath else tuple(_expanded(elf.rpath, path))) + inherited
            for name in elf.needed:
                if name in loaded:
                    continue
                loaded.add(name)
                found = self._find(name, elf, path, rpath)
                library = elf_of(self._root.place(found))
                if library is None:  # it was one when it was found
                    shown = self._root.shown(found)
                    raise BuildError(f"{shown} changed while it was read", reason="source-changed")
                directories = (*rpath, *_expanded(elf.runpath, path))
                if self._loader is not None and not self._loader_finds(self._loader, found, directories):
                    self._files.link(str(self._loader.parent / name), str(found))
                self._done.add(self._files.take(found))
                todo.append((found, library, rpath))

    def _find(self, name: str, elf: Elf, path: Path, rpath: tuple[str, ...]) -> Path:
        if "/" in name:
            return Path(name)
        own = () if self._loader is None else (str(self._loader.parent),)
        places = (*rpath, *_expanded(elf.runpath, path), *self._configured(), *own, *_STANDARD)
        searched = list(dict.fromkeys(places))
        for directory in searched:
            candidate = Path(directory, name)
            self._observe(self._root.shown(candidate))
            if self._root.is_file(candidate):
                found = elf_of(self._root.place(candidate))
                if found is not None and found.platform == elf.platform:
                    return candidate
        raise BuildError(
            f"library {name}, which {self._root.shown(path)} loads, is not on this machine",
            details="searched: " + " ".join(str(self._root.shown(Path(each))) for each in searched),
            resolution="install the package that has it",
            reason="library-missing",
        )

    def _loader_finds(self, loader: Path, library: Path, directories: Collection[str]) -> bool:
        """Say whether a loader without a cache, told of `directories`, finds a library."""
        beside = self._root.follow(library.parent).path == loader.parent or library.name == loader.name
        return beside or str(library.parent) in directories

    def _configured(self) -> list[str]:
        if self._directories is None:
            self._directories = list(self._read_configuration(LOADER_CONFIGURATION, 0))
        return self._directories

    def _read_configuration(self, file: Path, depth: int) -> Iterator[str]:
        self._observe(self._root.shown(file))
        try:
            lines = self._root.place(file).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:  # musl and others have none
            return
        for line in lines:
            text = line.partition("#")[0].strip()
            word, _, rest = text.partition(" ")
            if word == "include" and depth < _MOST_INCLUDES:
                pattern = os.path.normpath(file.parent / rest.strip()).lstrip("/")
                self._observe(self._root.shown(Path("/", pattern).parent))
                for included in sorted(self._root.top.glob(pattern)) if pattern else ():
                    inside = Path("/", included.relative_to(self._root.top))
                    yield from self._read_configuration(inside, depth + 1)
            elif text.startswith("/"):
                yield text


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
