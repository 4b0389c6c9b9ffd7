"""The front ends against the programs that they stand for: same standard output, same exit status, same words."""

import os
import subprocess
import sys
from pathlib import Path

import lab
import pytest
from generator import random_dump

from cfsbuild.cli import composefs_info
from cfsbuild.erofs.format import xattr_index
from cfsbuild.erofs.writer import write_image
from cfsbuild.tree.dump import format_entry, parse_dump_bytes

pytestmark = pytest.mark.lab

MODULES = {
    "mkcomposefs": "mkcomposefs",
    "composefs-info": "composefs_info",
    "mount.composefs": "mount_composefs",
}
WORKED = b"""/ 0 40755 2 0 0 0 1.0 - - -
/big 5000 100644 1 0 0 0 1.5 ab/cdefg - 0011223344556677889900112233445566778899001122334455667788990011 user.a=1
/copy 5000 100644 1 0 0 0 1.5 ab/cdefg - -
/d 0 40755 2 0 0 0 1.0 - - -
/d/hl 0 @100644 1 0 0 0 0.0 /big - -
/d/odd\\x20\\xff\\n 3 120777 1 0 0 0 0.0 x\\ty - -
/dev 0 20644 1 0 0 1288 0.0 - - -
/inline 3 100644 1 0 0 0 0.0 - a\\x3d\\x20 - user.x\\x3d=\\x3d\\x20
/other 9 100644 1 0 0 0 1.5 00/112233 - -
/empty 0 100644 1 0 0 0 1.5 - - -
"""
MAKE = [
    ["--from-file", "w.dump", "out"],
    ["--from-file", "w.dump", "-"],
    ["--from-file", "-", "-"],
    ["w.dump", "--from-file", "--print-digest", "out"],
    ["--from-file", "--print-digest-only", "w.dump"],
    ["--from-file", "--print-digest-o", "w.dump"],
    ["--from-file", "--print-digest", "w.dump", "-"],
    ["--from-file", "--min-version=1", "--print-digest-only", "w.dump"],
    ["--from-file", "--min-version", "0", "--print-digest-only", "wh.dump"],
    ["--from-file", "--max-version=1", "--print-digest-only", "wh.dump"],
    ["--from-file", "--max-version=0", "--print-digest-only", "wh.dump"],
    ["--from-file", "--print-digest-only", "wh.dump"],
    ["--print-digest-only", "src"],
    ["--print-digest", "--use-epoch", "--", "src", "out"],
    ["--threads=1", "--print-digest-only", "src"],
    # what is refused
    [],
    ["src"],
    ["src", "out", "extra"],
    ["--print-digest-only", "src", "out"],
    ["--bogus", "src", "out"],
    ["-x", "src", "out"],
    ["--print-dig", "src", "out"],
    ["--from-file=x", "w.dump", "out"],
    ["--digest-store"],
    ["--threads=0", "src", "out"],
    ["--threads=x", "src", "out"],
    ["--min-version=x", "src", "out"],
    ["--max-version=", "src", "out"],
    ["--min-version=7", "src", "out"],
    ["--max-version=9", "src", "out"],
    ["--min-version=-1", "src", "out"],
    ["--skip-xattrs", "--user-xattrs", "src", "out"],
    ["--from-file", "missing", "out"],
    ["--from-file", "w.dump", "missing/out"],
    ["--from-file", "w.dump", "src"],
]
MAKE_REFUSED = [
    ["missing", "out"],
    ["w.dump", "out"],
    ["--from-file", "bad.dump", "out"],
    ["--from-file", "empty", "out"],
]
INFO = [
    ["ls", "w.cfs"],
    ["ls", "w.cfs", "src.cfs"],
    ["ls", "--filter=d", "w.cfs"],
    ["--filter=d", "--filter", "big", "dump", "w.cfs"],
    ["--fil", "nothing", "dump", "w.cfs"],
    ["dump", "w.cfs"],
    ["dump", "src.cfs", "w.cfs"],
    ["objects", "w.cfs"],
    ["objects", "w.cfs", "src.cfs"],
    ["missing-objects", "w.cfs"],
    ["--basedir=store", "missing-objects", "w.cfs"],
    ["missing-objects", "w.cfs", "--basedir", "store"],
    ["measure-file", "w.cfs", "src/file"],
    [],
    ["ls"],
    ["measure-file"],
    ["missing-objects"],
    ["ls", "missing"],
    ["measure-file", "missing"],
]
INFO_REFUSED = [
    ["bogus", "w.cfs"],
    ["ls", "w.dump"],
    ["dump", "empty"],
    ["--filter=a/b", "ls", "w.cfs"],
    ["--basedir=missing", "missing-objects", "w.cfs"],
    ["--bogus"],
    ["--basedir"],
    ["-x"],
    ["measure-file", "src"],
]
MOUNT = [
    [],
    ["-h"],
    ["src.cfs"],
    ["src.cfs", "mnt"],
    ["-t", "ext4", "src.cfs", "mnt"],
    ["-o", "nodev", "src.cfs", "mnt"],
    ["-o", "basedir=objects,,ro", "src.cfs", "mnt"],
    ["-o", "basedir", "src.cfs", "mnt"],
    ["-o", "basedir=", "src.cfs", "mnt"],
    ["-o", "basedir=:", "src.cfs", "mnt"],
    ["-o", "basedir=objects,upperdir=mnt", "src.cfs", "mnt"],
    ["-o", "basedir=objects,digest=zz", "src.cfs", "mnt"],
    ["-o", f"basedir=objects,digest={'0' * 64}", "src.cfs", "mnt"],
    ["-o", "basedir=objects,idmap=missing", "src.cfs", "mnt"],
    ["-o", "basedir=objects", "missing", "mnt"],
    ["-o", "basedir=objects", "w.dump", "mnt"],
]
MOUNTED = """
mount.composefs -o "$1" src.cfs mnt
sha256sum mnt/file mnt/small
grep -o ' overlay r[ow]' /proc/mounts
umount mnt
"""


@pytest.fixture(scope="module")
def place():
    lab.require("mkcomposefs", "composefs-info", "mount.composefs")
    with lab.workspace() as (outside, inside):
        (outside / "src").mkdir()
        (outside / "src" / "file").write_bytes(b"x" * 5000)
        (outside / "src" / "small").write_bytes(b"hi\n")
        (outside / "w.dump").write_bytes(WORKED)
        (outside / "wh.dump").write_bytes(WORKED + b"/wh 0 20644 1 0 0 0 0.0 - - -\n")
        (outside / "bad.dump").write_bytes(b"nonsense\n")
        (outside / "empty").write_bytes(b"")
        (outside / "store" / "ab").mkdir(parents=True)
        (outside / "store" / "ab" / "cdefg").write_bytes(b"")
        assert lab.run("mkcomposefs", "--from-file", "w.dump", "w.cfs", cwd=inside).returncode == 0
        (outside / "mnt").mkdir()
        (outside / "objects").mkdir()
        stored = lab.run("mkcomposefs", "--digest-store=objects", "src", "src.cfs", cwd=inside)
        assert stored.returncode == 0, stored.stderr
        yield outside, inside


def both(place, program, arguments, stdin=b""):
    """Run the real program and ours; return (status, stdout, stderr, output file) of each."""
    outside, inside = place
    code = f"import sys; from cfsbuild.cli.{MODULES[program]} import main; sys.exit(main(sys.argv[1:], {program!r}))"
    results = []
    for run in (
        lambda: lab.run(program, *arguments, stdin=stdin, cwd=inside),
        lambda: subprocess.run(
            [sys.executable, "-c", code, *arguments],
            input=stdin,
            capture_output=True,
            check=False,
            cwd=outside,
        ),
    ):
        (outside / "out").unlink(missing_ok=True)
        done = run()
        made = (outside / "out").read_bytes() if (outside / "out").exists() else b""
        results.append((done.returncode, done.stdout, done.stderr, made))
    return results


@pytest.mark.parametrize("arguments", MAKE, ids=" ".join)
def test_mkcomposefs_says_and_does_the_same(place, arguments):
    theirs, ours = both(place, "mkcomposefs", arguments, stdin=WORKED if arguments[1:2] == ["-"] else b"")
    assert ours[:3] == theirs[:3]
    if theirs[0] == 0:
        assert ours[3] == theirs[3]
    else:
        assert ours[3] == b""  # theirs may be truncated, ours is not there


@pytest.mark.parametrize("arguments", MAKE_REFUSED, ids=" ".join)
def test_mkcomposefs_refuses_the_same_in_words_of_its_own(place, arguments):
    theirs, ours = both(place, "mkcomposefs", arguments)
    assert theirs[0] == ours[0] == 1
    assert theirs[1] == ours[1] == b""
    assert ours[2].startswith(b"mkcomposefs: ")


@pytest.mark.parametrize("arguments", INFO, ids=" ".join)
def test_composefs_info_says_the_same(place, arguments):
    theirs, ours = both(place, "composefs-info", arguments)
    assert ours == theirs


@pytest.mark.parametrize("arguments", INFO_REFUSED, ids=" ".join)
def test_composefs_info_refuses_the_same_in_words_of_its_own(place, arguments):
    theirs, ours = both(place, "composefs-info", arguments)
    assert theirs[0] == ours[0] == 1
    assert ours[1] == b""  # theirs prints "Def" after a bad option
    assert ours[2]


@pytest.mark.parametrize("arguments", MOUNT, ids=" ".join)
def test_mount_composefs_says_the_same_when_it_does_not_mount(place, arguments):
    theirs, ours = both(place, "mount.composefs", arguments)
    assert ours[:2] == theirs[:2]
    # The C program ends a message with two line feeds; and getopt's own words are the C library's.
    assert ours[2].replace(b"\n\n", b"\n") == theirs[2].replace(b"\n\n", b"\n")


@pytest.mark.parametrize(
    "options", ["basedir=objects", "ro,basedir=mnt:objects", "rw,basedir=objects,tryverity"]
)
def test_mount_composefs_mounts_the_same(place, options, tmp_path):
    outside, inside = place
    theirs = lab.run("sh", "-c", MOUNTED, "sh", options, cwd=inside)
    (tmp_path / "mount.composefs").symlink_to(Path(sys.executable).parent / "cfsbuild")
    path = f"{tmp_path}:{os.environ['PATH']}"
    ours = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", MOUNTED, "sh", options],
        capture_output=True,
        check=False,
        cwd=outside,
        env={**os.environ, "PATH": path},
    )
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert b"mnt/small" in ours.stdout


CHECK = """
cd "$1"
for image in *.cfs; do
    composefs-info dump $image >$image.dump
    fsck.erofs $image >$image.fsck 2>&1 || echo "$image: $(cat $image.fsck)"
done
"""


def test_the_real_tools_read_our_images_as_we_do(capsysbinary):
    lab.require("composefs-info", "fsck.erofs")
    seeds = range(150)
    with lab.workspace() as (outside, inside):
        for seed in seeds:
            dump = [entry for entry in random_dump(seed) if is_plain(entry)]
            text = b"".join(format_entry(entry) + b"\n" for entry in reachable(dump))
            (outside / f"{seed}.cfs").write_bytes(write_image(parse_dump_bytes(text), format=1))
        assert lab.script(CHECK, inside).stdout == b""  # fsck.erofs found nothing
        for seed in seeds:
            assert composefs_info.main(["dump", str(outside / f"{seed}.cfs")], "composefs-info") == 0
            assert capsysbinary.readouterr().out == (outside / f"{seed}.cfs.dump").read_bytes(), seed


def is_plain(entry):
    """Leave out what the C reader shows wrongly.

    Redirects of a multiple of four bytes, xattrs of empty suffix and value, and what a whiteout adds to its
    directory, which that reader leaves in place.
    """
    kind = entry.mode & 0o170000
    if kind == 0o020000 and entry.rdev == 0:
        return False
    if kind == 0o100000 and entry.size and not entry.content and len(entry.payload or b"bad") % 4 == 3:
        return False
    return not any(
        b"overlay" in name or (not xattr_index(name)[1] and not value) for name, value in entry.xattrs
    )


def reachable(dump):
    """Drop the names whose directory or hard link target was left out."""
    kept = {}
    for entry in dump:
        parent = entry.path.rpartition(b"/")[0] or b"/"
        if entry.path == b"/" or (parent in kept and (entry.hardlink is None or entry.hardlink in kept)):
            kept[entry.path] = entry
    return kept.values() if b"/" in kept else [next(parse_dump_bytes(WORKED))]
