"""The shipped recipes, built and mounted by the kernel: every path is what was meant, and programs run."""

from __future__ import annotations

import fnmatch
import os
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from console_blocks import ROOT, can_mount
from mounted_trees import Entry, Project, differences, link_groups, project, sha256, tree_at

sys.path.append(str(ROOT / "tests/lab"))
import lab

EPOCH_NS = 1767225600 * 10**9

needs_mount = pytest.mark.skipif(not can_mount(), reason="mounting needs root and a kernel with EROFS")


def directory(mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Entry:
    return Entry("directory", mode, owner, EPOCH_NS)


def file(data: bytes, mode: int = 0o644, owner: tuple[int, int] = (0, 0), **more) -> Entry:
    return Entry("file", mode, owner, more.pop("mtime_ns", 0), sha256(data), len(data), **more)


def symlink(target: str, owner: tuple[int, int] = (0, 0), mtime_ns: int = 0) -> Entry:
    return Entry("symlink", 0o777, owner, mtime_ns, target, len(target.encode()))


# vfs_cap_data, revision 2, effective: capability 10 is CAP_NET_BIND_SERVICE (linux/capability.h).
BIND_SERVICE = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)

HELLO = {
    "/": directory(),
    "/dev": directory(),
    "/dev/null": Entry("char", 0o666, (0, 0), 0, (1, 3)),
    "/etc": directory(),
    "/etc/group": file(b"root:x:0:\napp:x:990:\n"),
    "/etc/gshadow": file(b"root:!*::\napp:!*::\n", 0o600),
    "/etc/motd": file(b"Hello from a verified image (release 1.0).\nLook at /opt/app.\nLook at /etc/motd.\n"),
    "/etc/passwd": file(b"root:x:0:0:root:/root:/bin/sh\napp:x:990:990::/var/lib/app:/usr/sbin/nologin\n"),
    "/etc/shadow": file(b"root:!*:::::::\napp:!*:::::::\n", 0o600),
    "/opt": directory(),
    "/opt/app": directory(owner=(990, 0)),
    "/opt/app/bin": directory(owner=(990, 0)),
    "/opt/app/bin/hello": file(
        b"#!/bin/sh\n# The image has no shell of its own: run it from a machine that mounted the image.\n"
        b'root=$(dirname "$0")/../../..\ncat "$root/etc/motd"\n',
        0o750,
        (990, 990),
        xattrs=(("security.capability", BIND_SERVICE),),
    ),
    "/opt/app/etc": directory(owner=(990, 0)),
    "/opt/app/etc/issue": file(b"HELLO FROM A VERIFIED IMAGE\n"),
    "/run": directory(),
    "/usr": directory(),
    "/usr/bin": directory(),
    "/usr/bin/hello": symlink("../../opt/app/bin/hello"),
    "/var": directory(),
    "/var/lib": directory(),
    "/var/lib/app": directory(0o700, (990, 990)),
}


@needs_mount
def test_the_mounted_hello_image_is_what_the_recipe_means(tmp_path):
    here = project(tmp_path)
    here.cfsbuild("build", "hello.toml")
    with here.mounted("hello-1.0") as point:
        assert differences(HELLO, tree_at(point)) == []
        assert (point / "usr/bin/hello").resolve() == point / "opt/app/bin/hello"
        program = subprocess.run([point / "opt/app/bin/hello"], capture_output=True, check=True, text=True)
    assert program.stdout.startswith("Hello from a verified image (release 1.0).\n")


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cfsbuild"


@pytest.fixture(scope="module")
def rootfs() -> Path:
    """Return a minimal Debian root as a tar archive, made once for each user of this machine."""
    archive = cache() / "rootfs.tar"
    if not archive.exists():
        if shutil.which("mmdebstrap") is None:
            pytest.skip("mmdebstrap is not installed")
        archive.parent.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(
            [ROOT / "recipes/debian/make-rootfs", archive], capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr
    return archive


@pytest.fixture(scope="module")
def debian(rootfs, tmp_path_factory) -> Project:
    here = project(tmp_path_factory.mktemp("debian"))
    here.cfsbuild("build", "debian.toml", "-o", f"rootfs={rootfs}")
    return here


def _left_out(path: str) -> bool:
    return path.startswith(
        ("/var/cache/apt/", "/var/lib/apt/lists/", "/usr/share/doc/", "/usr/share/man/")
    ) or (fnmatch.fnmatchcase(path, "/dev/*"))


def _from_archive(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    """Say what an image should have of a member: times clamped to the epoch, directories always at it."""
    owner, mtime_ns = (member.uid, member.gid), min(int(member.mtime) * 10**9, EPOCH_NS)
    if member.isdir():
        return directory(member.mode, owner)
    if member.issym():
        return symlink(member.linkname, owner, mtime_ns)
    if member.ischr() or member.isblk():
        kind = "char" if member.ischr() else "block"
        return Entry(kind, member.mode, owner, mtime_ns, (member.devmajor, member.devminor))
    stream = archive.extractfile(member)
    assert stream is not None, member.name
    return file(stream.read(), member.mode, owner, mtime_ns=mtime_ns)


def meant_debian(archive_path: Path) -> tuple[dict[str, Entry], set[frozenset[str]]]:
    """Return what debian.toml means, computed from the archive with Python's tarfile, and its hard links."""
    meant: dict[str, Entry] = {}
    contents: dict[str, bytes] = {}
    linked: dict[str, set[str]] = {}
    with tarfile.open(archive_path) as archive:
        for member in archive:
            path = "/" + member.name.removeprefix(".").strip("/")
            if _left_out(path):
                continue
            if path in {"/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"}:
                contents[path] = archive.extractfile(member).read()
            if member.islnk():
                first = "/" + member.linkname.removeprefix(".").strip("/")
                linked.setdefault(first, {first}).add(path)
                meant[path] = meant[first]
            else:
                meant[path] = _from_archive(archive, member)
    added = {
        "/etc/passwd": b"kiosk:x:990:990::/var/lib/kiosk:/usr/sbin/nologin\n",
        "/etc/group": b"kiosk:x:990:\n",
        "/etc/shadow": b"kiosk:!*:::::::\n",
        "/etc/gshadow": b"kiosk:!*::\n",
    }
    for path, line in added.items():
        content = contents[path] + line
        meant[path] = meant[path]._replace(content=sha256(content), size=len(content))
    kiosk = (ROOT / "recipes/debian/app/bin/kiosk").read_bytes()
    meant |= {
        "/etc/hostname": file(b"kiosk\n"),
        "/etc/issue": file(b"kiosk 2026.01\n"),
        "/opt/kiosk": directory(owner=(990, 0)),
        "/opt/kiosk/bin": directory(owner=(990, 0)),
        "/opt/kiosk/bin/kiosk": file(kiosk, 0o755, (990, 0)),
        "/var/lib/kiosk": directory(0o700, (990, 990)),
    }
    return meant, {frozenset(names) for names in linked.values()}


@pytest.mark.slow
@needs_mount
def test_the_mounted_debian_image_is_its_archive_with_the_changes_of_the_recipe(rootfs, debian):
    meant, linked = meant_debian(rootfs)
    assert len(meant) > 3000
    with debian.mounted("debian-kiosk-2026.01") as point:
        found = tree_at(point)
        assert differences(meant, found)[:20] == []
        assert link_groups(point, iter(found)) == linked


@pytest.mark.slow
@needs_mount
def test_programs_run_in_the_debian_image(debian):
    assert debian.cfsbuild("shell", "debian-kiosk-2026.01", "/opt/kiosk/bin/kiosk") == "kiosk runs as kiosk\n"
    assert "package management program" in debian.cfsbuild(
        "shell", "debian-kiosk-2026.01", "dpkg", "--version"
    )
    with debian.mounted("debian-kiosk-2026.01") as point:
        output = subprocess.run(
            ["chroot", point, "/usr/bin/id", "-un", "990"], capture_output=True, check=True
        )
    assert output.stdout == b"kiosk\n"


@pytest.mark.slow
def test_the_debian_image_is_built_once(rootfs, debian):
    arguments = ("build", "debian.toml", "-o", f"rootfs={rootfs}")
    first = debian.cfsbuild("verify", "--json", "debian-kiosk-2026.01")
    again = debian.cfsbuild(*arguments)
    assert again.split()[0] in first
    assert "up to date" in debian.cfsbuild("build", "-n", *arguments[1:])


def _real_dump(image: Path) -> bytes:
    lab.require("composefs-info")
    with lab.workspace() as (outside, inside):
        shutil.copy(image, outside / "image.cfs")
        result = lab.run("composefs-info", "dump", f"{inside}/image.cfs")
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.lab
def test_the_real_composefs_info_reads_the_hello_image_as_our_dump(tmp_path):
    here = project(tmp_path)
    here.cfsbuild("build", "hello.toml")
    assert _real_dump(tmp_path / "out/hello-1.0.cfs") == (tmp_path / "out/hello-1.0.dump").read_bytes()


@pytest.mark.lab
@pytest.mark.slow
def test_the_real_composefs_info_reads_the_debian_image_as_our_dump(debian):
    out = debian.directory / "out"
    real = _real_dump(out / "debian-kiosk-2026.01.cfs")
    assert real == (out / "debian-kiosk-2026.01.dump").read_bytes()
