"""Declares the native accelerators, all of them optional: each has a pure-Python twin.

Everything else about the package stands in pyproject.toml.
"""

from pathlib import Path

from setuptools import Extension, setup

VERITY_SOURCES = [f"cfsbuild/fsverity/native/{name}.c" for name in ("sha_*", "merkle", "batch")]

MODULES = {
    "cfsbuild.fsverity._verity": ["cfsbuild/fsverity/native/*.c"],
    "cfsbuild.tree._scan": ["cfsbuild/tree/native/*.c"],
    "cfsbuild.erofs._emit": ["cfsbuild/erofs/native/*.c"],
    "cfsbuild.store._ingest": ["cfsbuild/store/native/*.c", *VERITY_SOURCES],
}


def extension(name: str, patterns: list[str]) -> Extension:
    """Return the optional extension module `name` built from the C files matching `patterns`."""
    sources = sorted(str(path) for pattern in patterns for path in Path().glob(pattern))
    headers = sorted(str(path) for path in Path().glob("cfsbuild/*/native/*.h"))
    return Extension(
        name,
        sources=sources,
        depends=headers,
        include_dirs=["cfsbuild/fsverity/native", "cfsbuild/tree/native"],
        extra_compile_args=["-O3", "-std=c11", "-Wall", "-Wextra", "-D_GNU_SOURCE"],
        extra_link_args=["-pthread"],
        optional=True,
    )


setup(ext_modules=[ext for name, patterns in MODULES.items() if (ext := extension(name, patterns)).sources])
