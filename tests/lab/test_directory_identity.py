"""Directory mode: our front end makes of a directory on disk what the real mkcomposefs makes of it."""

# Names of arbitrary bytes are no paths of pathlib.
# ruff: noqa: PTH101, PTH102, PTH114, PTH123, PTH211

import os
import random
import stat
import struct

import lab
import pytest

from cfsbuild.cli import mkcomposefs

pytestmark = pytest.mark.lab

TREES = 12
OPTIONS = (
    [],
    ["--use-epoch"],
    ["--skip-devices"],
    ["--skip-xattrs"],
    ["--user-xattrs"],
    ["--min-version=1"],
    ["--min-version=0"],
    ["--use-epoch", "--skip-devices", "--user-xattrs", "--threads=1"],
)
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, who)
    for tag, permissions, who in (
        (1, 6, 2**32 - 1),
        (2, 4, 1000),
        (4, 4, 2**32 - 1),
        (16, 6, 2**32 - 1),
        (32, 4, 2**32 - 1),
    )
)
NAMES = bytes(byte for byte in range(1, 256) if byte != ord("/"))


@pytest.fixture(autouse=True)
def _lab():
    lab.require("mkcomposefs")


def make_tree(root, seed):
    """Fill the directory `root` with what a file system can hold."""
    draw = random.Random(seed)
    directories = [os.fsencode(root)]
    files = []
    for number in range(draw.choice((0, 5, 60, 200))):
        name = b"%d" % number + bytes(draw.choices(NAMES, k=draw.choice((0, 1, 8, 100))))
        path = draw.choice(directories) + b"/" + name
        kind = draw.choice(
            ["file"] * 5
            + ["dir", "dir", "symlink", "link", "chr", "blk", "fifo", "socket", "whiteout", "hole"]
        )
        if kind == "dir":
            os.mkdir(path)
            directories.append(path)
        elif kind == "symlink":
            os.symlink(b"t" * draw.choice((1, 50, 3000)), path)
        elif kind == "link" and files:
            os.link(draw.choice(files), path)
            continue
        elif kind in {"chr", "blk", "whiteout"}:
            device = 0 if kind == "whiteout" else os.makedev(draw.randrange(1, 4096), draw.randrange(2**20))
            os.mknod(path, (stat.S_IFBLK if kind == "blk" else stat.S_IFCHR) | 0o640, device)
        elif kind in {"fifo", "socket"}:
            os.mknod(path, (stat.S_IFIFO if kind == "fifo" else stat.S_IFSOCK) | 0o600)
        else:
            with open(path, "wb") as file:
                file.write(draw.randbytes(draw.choice((0, 1, 64, 65, 4096, 4097, 300000))))
                if kind == "hole":
                    file.truncate(2**21)
            files.append(path)
        dress(draw, path)


def dress(draw, path):
    """Give a file an owner, xattrs, a mode and a time."""
    link = os.path.islink(path)
    os.chown(path, draw.choice((0, 1000, 65536)), draw.choice((0, 2**31)), follow_symlinks=False)
    plain = stat.S_IFMT(os.lstat(path).st_mode) in {stat.S_IFREG, stat.S_IFDIR}
    if plain and draw.random() < 0.3:
        os.setxattr(path, "user.note", draw.randbytes(draw.randrange(20)))
        os.setxattr(path, "system.posix_acl_access", ACL)
    if draw.random() < 0.3:
        os.setxattr(path, "trusted.note", b"same for all", follow_symlinks=False)
    if plain and draw.random() < 0.1:
        os.setxattr(path, "trusted.overlay.redirect", b"/elsewhere")
    if not link:
        os.chmod(path, draw.choice((0o644, 0o755, 0o4711, 0o1777)))
    nanoseconds = draw.choice((0, -(10**9) * 5, draw.randrange(2**61)))
    os.utime(path, ns=(nanoseconds, nanoseconds), follow_symlinks=False)


@pytest.mark.parametrize("seed", range(TREES))
def test_directories_give_the_same_images(seed, tmp_path):
    with lab.workspace() as (outside, inside):
        source = outside / "source"
        source.mkdir()
        make_tree(source, seed)
        for number, options in enumerate(OPTIONS):
            theirs = lab.run("mkcomposefs", *options, f"{inside}/source", f"{inside}/{number}.cfs")
            assert theirs.returncode == 0, theirs.stderr
            ours = tmp_path / f"{number}.cfs"
            assert mkcomposefs.main([*options, str(source), str(ours)], "mkcomposefs") == 0
            assert ours.read_bytes() == (outside / f"{number}.cfs").read_bytes(), options


def test_the_digest_store_holds_the_same_objects(tmp_path):
    with lab.workspace() as (outside, inside):
        source = outside / "source"
        source.mkdir()
        make_tree(source, 3)
        theirs = lab.run(
            "mkcomposefs", f"--digest-store={inside}/store", f"{inside}/source", f"{inside}/a.cfs"
        )
        assert theirs.returncode == 0, theirs.stderr
        store = tmp_path / "store"
        for _ in range(2):  # the second time everything is there already
            assert (
                mkcomposefs.main(
                    [f"--digest-store={store}", str(source), str(tmp_path / "a.cfs")], "mkcomposefs"
                )
                == 0
            )
            assert listing(store) == listing(outside / "store")
        assert (tmp_path / "a.cfs").read_bytes() == (outside / "a.cfs").read_bytes()


def listing(root):
    return {
        path.relative_to(root): (path.stat().st_mode, path.is_file() and path.read_bytes())
        for path in root.rglob("*")
    }
