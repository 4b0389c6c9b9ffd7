"""What is measured on: a real root file system, and dumps of trees as large as one likes.

corpus.py copy DIRECTORY [--without PATH ...]   make one of this machine: /usr, /etc, /var/lib/dpkg
corpus.py debian DIRECTORY                      make a developer's Debian 12 by mmdebstrap
corpus.py facts DIRECTORY                       say what a directory holds
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import stat
import subprocess
from pathlib import Path
from typing import NamedTuple

PARTS = ("usr", "etc", "var/lib/dpkg")
WITHOUT = ("usr/lib/google-cloud-sdk", "usr/lib/jvm", "usr/lib/llvm-14")
"""What no root file system of a usual size has."""

PACKAGES = (
    "build-essential,cmake,curl,emacs-nox,git,gnupg,imagemagick,libboost-dev,linux-headers-amd64,"
    "linux-image-amd64,locales,man-db,manpages-dev,network-manager,nginx,nodejs,npm,openssh-server,perl-doc,"
    "php-cli,python3-dev,python3-numpy,qtbase5-dev,rsync,ruby,systemd,texlive-latex-recommended,tmux,vim"
)
"""What makes a root file system of usual size: some 107,000 files, 2 to 3 GB."""

INLINE = 64
BLOCK = 4096


class Facts(NamedTuple):
    """What a directory holds; sizes in bytes."""

    entries: int
    directories: int
    symlinks: int
    files: int
    inline: int
    one_block: int
    bytes: int
    blocks: int
    median: int
    largest: int
    with_xattrs: int

    def __str__(self) -> str:
        return (
            f"{self.entries:,} entries: {self.directories:,} directories, {self.symlinks:,} symbolic links, "
            f"{self.files:,} files ({self.inline:,} of at most {INLINE} bytes, "
            f"{self.one_block:,} of at most {BLOCK}; median {self.median:,}, "
            f"largest {self.largest:,} bytes); {self.bytes / 1e6:,.0f} MB in {self.blocks:,} blocks; "
            f"{self.with_xattrs:,} with extended attributes"
        )


def facts(root: Path) -> Facts:
    """Return what `root` holds."""
    kinds = {stat.S_IFDIR: 0, stat.S_IFLNK: 0, stat.S_IFREG: 0}
    sizes, attributed, entries = [], 0, 0
    todo = [os.fsencode(root)]
    while todo:
        directory = todo.pop()
        with os.scandir(directory) as found:
            for entry in found:
                status = entry.stat(follow_symlinks=False)
                kind = stat.S_IFMT(status.st_mode)
                entries += 1
                kinds[kind] = kinds.get(kind, 0) + 1
                attributed += bool(os.listxattr(entry.path, follow_symlinks=False))
                if kind == stat.S_IFDIR:
                    todo.append(entry.path)
                elif kind == stat.S_IFREG:
                    sizes.append(status.st_size)
    sizes.sort()
    return Facts(
        entries + 1,
        kinds[stat.S_IFDIR] + 1,
        kinds[stat.S_IFLNK],
        len(sizes),
        sum(size <= INLINE for size in sizes),
        sum(size <= BLOCK for size in sizes),
        sum(sizes),
        sum(-(-size // BLOCK) for size in sizes),
        sizes[len(sizes) // 2] if sizes else 0,
        sizes[-1] if sizes else 0,
        attributed,
    )


def copy(destination: Path, without: tuple[str, ...] = WITHOUT) -> None:
    """Copy this machine's own programs, settings and package lists to `destination`, with all attributes."""
    destination.mkdir(parents=True)
    excluded = [f"--exclude={path}" for path in without]
    pack = ["tar", "-c", "--one-file-system", "--xattrs", *excluded, "-C", "/", *PARTS]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packing:
        subprocess.run(
            ["tar", "-x", "--xattrs", "--xattrs-include=*", "-C", str(destination)],
            check=True,
            stdin=packing.stdout,
        )
    if packing.returncode:
        raise SystemExit("the copy is not complete")


def debian(destination: Path) -> None:
    """Make the root file system of a Debian 12 with `PACKAGES` at `destination`, from apt's own archive.

    Its device nodes are removed: a `tree` node takes none.
    """
    index = ["apt-get", "indextargets", "--format", "$(SITE)", "Identifier: Packages"]
    sites = subprocess.run(index, check=True, capture_output=True, text=True).stdout.splitlines()
    archive = next(site for site in sites if "security" not in site)
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    subprocess.run(
        [
            *("mmdebstrap", "--variant=important", f"--include={PACKAGES}"),
            *('--customize-hook=find "$1/dev" -xdev -type b -delete -o -type c -delete', "bookworm"),
            *(str(destination), f"deb [signed-by={key}] {archive} bookworm main"),
        ],
        check=True,
    )


def make_dump(path: Path, entries: int) -> None:
    """Write a dump of a rootfs-like tree: 9 % directories, 8 % symlinks, 8 % inline, the rest external.

    Every inode has one of forty SELinux labels.
    """
    draw = random.Random(1)
    directories, here = [b""], b""
    with path.open("wb") as file:
        file.write(b"/ 0 40755 2 0 0 0 1700000000.0 - - - security.selinux=system_u:object_r:root_t:s0\n")
        for number in range(entries):
            time = b"%d.%d" % (1500000000 + draw.randrange(10**8), draw.randrange(10**9))
            label = b"security.selinux=system_u:object_r:t%d_t:s0" % draw.randrange(40)
            name = here + b"/name%d" % number
            choice = draw.random()
            if choice < 0.09:
                fields = b" 0 40755 2 0 0 0 " + time + b" - - - "
                if name.count(b"/") < 7:
                    directories.append(name)
                here = name
            elif choice < 0.17:
                fields = b" 6 120777 1 0 0 0 " + time + b" target - - "
            elif choice < 0.25:
                fields = b" 5 100644 1 0 0 0 " + time + b" - hello - "
            else:
                digest = hashlib.sha256(b"%d" % number).hexdigest().encode()
                size = draw.randrange(65, 100000)
                fields = b" %d 100644 1 0 0 0 %b %b/%b - %b " % (size, time, digest[:2], digest[2:], digest)
            file.write(name + fields + label + b"\n")
            if draw.random() < 0.1:
                here = draw.choice(directories)


def make_tree(root: Path, entries: int) -> None:
    """Make a directory of `entries` entries: 9 % directories, 8 % links, files of 0 to 200 bytes."""
    draw = random.Random(2)
    root.mkdir(parents=True)
    here, made = str(root), [str(root)]
    for number in range(entries - 1):
        choice = draw.random()
        name = f"{here}/name{number}"
        if choice < 0.09:
            os.mkdir(name)  # noqa: PTH102 (a million of them)
            if name.count("/") < str(root).count("/") + 7:
                made.append(name)
            here = name
        elif choice < 0.17:
            os.symlink("target", name)  # noqa: PTH211
        else:
            with open(name, "wb") as file:  # noqa: PTH123
                file.write(b"%d" % number * (number % 40))
        if draw.random() < 0.1:
            here = draw.choice(made)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("copy", "debian", "facts"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--without", nargs="*", default=list(WITHOUT))
    options = parser.parse_args()
    if options.action == "copy":
        copy(options.directory, tuple(options.without))
    elif options.action == "debian":
        debian(options.directory)
    print(facts(options.directory))


if __name__ == "__main__":
    main()
