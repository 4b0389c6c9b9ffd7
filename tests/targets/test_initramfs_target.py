"""The initramfs target: other programs unpack it, and what they see is the tree."""

import gzip
import io
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest
import zstandard

from cfsbuild.build.pipeline import Options, build, make_request
from cfsbuild.errors import BuildError

RECIPE = """\
[image]
name = "first"
version = "3"
epoch = 1000
[nodes.tool]
kind = "file"
target = "/usr/bin/tool"
content = "{{ 'a tool that is not inline ' * 9 }}"
mode = "4755"
owner = 7
group = 8
mtime = 5000
[nodes.small]
kind = "file"
target = "/etc/small"
content = "inline"
[nodes.empty]
kind = "file"
target = "/etc/empty"
content = ""
[nodes.link]
kind = "symlink"
target = "/bin"
to = "usr/bin"
[nodes.console]
kind = "device"
target = "/dev/console"
type = "char"
major = 5
minor = 1
mode = "0600"
[nodes.disk]
kind = "device"
target = "/dev/disk"
type = "block"
major = 259
minor = 70000
[nodes.names]
kind = "tree"
source = "names"
target = "/names"
[targets.initramfs]
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can unpack devices and owners")


def make(directory, target="", recipe=RECIPE):
    """Build the recipe; return the initramfs's bytes."""
    (directory / "names").mkdir(parents=True)
    (directory / "names/b").write_text(
        "one file with three names, long enough to be an object of its own" * 2
    )
    for name in ("a", "z"):
        (directory / "names" / name).hardlink_to(directory / "names/b")
    path = directory / "first.toml"
    path.write_text(recipe + target)
    build(make_request(path, store=directory / "store", output=directory / "out"), Options(), environ={})
    return (directory / "out/first-3.initrd").read_bytes()


def described(directory):
    """Return what is at and below a directory, with link groups in place of inode numbers."""
    found, first = {}, {}
    for path in sorted([directory, *directory.rglob("*")]):
        status = path.lstat()
        what = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        name = str(path.relative_to(directory))
        rdev = status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else 0
        mtime = 0 if path.is_symlink() else int(status.st_mtime)
        link = first.setdefault(status.st_ino, name)
        found[name] = (status.st_mode, status.st_uid, status.st_gid, mtime, rdev, what, link)
    return found


TOOL = b"a tool that is not inline " * 9
NAMES = b"one file with three names, long enough to be an object of its own" * 2
DIRECTORY = (stat.S_IFDIR | 0o755, 0, 0, 1000, 0, b"")
MEANT = {
    ".": (*DIRECTORY, "."),
    "bin": (stat.S_IFLNK | 0o777, 0, 0, 0, 0, Path("usr/bin"), "bin"),
    "dev": (*DIRECTORY, "dev"),
    "dev/console": (stat.S_IFCHR | 0o600, 0, 0, 1000, os.makedev(5, 1), b"", "dev/console"),
    "dev/disk": (stat.S_IFBLK | 0o600, 0, 0, 1000, os.makedev(259, 70000), b"", "dev/disk"),
    "etc": (*DIRECTORY, "etc"),
    "etc/empty": (stat.S_IFREG | 0o644, 0, 0, 1000, 0, b"", "etc/empty"),
    "etc/small": (stat.S_IFREG | 0o644, 0, 0, 1000, 0, b"inline", "etc/small"),
    "names": (*DIRECTORY, "names"),
    "names/a": (stat.S_IFREG | 0o644, 0, 0, 1000, 0, NAMES, "names/a"),
    "names/b": (stat.S_IFREG | 0o644, 0, 0, 1000, 0, NAMES, "names/a"),
    "names/z": (stat.S_IFREG | 0o644, 0, 0, 1000, 0, NAMES, "names/a"),
    "usr": (*DIRECTORY, "usr"),
    "usr/bin": (*DIRECTORY, "usr/bin"),
    "usr/bin/tool": (stat.S_IFREG | 0o4755, 7, 8, 1000, 0, TOOL, "usr/bin/tool"),
}


@needs_root
@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("cpio", ["cpio", "-idm", "--quiet", "--no-absolute-filenames"]),
        ("bsdtar", ["bsdtar", "-xpf", "-", "--numeric-owner", "--same-owner"]),
    ],
)
def test_what_other_programs_unpack_is_the_tree(tmp_path, program, command):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    archive = make(tmp_path / "made", 'compression = "none"')
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(command, cwd=root, input=archive, check=True)
    found = described(root)
    for name, entry in MEANT.items():
        # cpio leaves directories the time at which their entries came; the root was there before.
        dated = name != "." and (program != "cpio" or not stat.S_ISDIR(entry[0]))
        assert found.pop(name) == (entry if dated else (*entry[:3], ANY, *entry[4:]))
    assert found == {}


def test_each_compression_holds_the_same_archive(tmp_path):
    plain = make(tmp_path / "none", 'compression = "none"')
    packed = make(tmp_path / "zstd", 'compression = "zstd"\nlevel = 19')
    assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(packed)).read() == plain
    assert gzip.decompress(make(tmp_path / "gzip", 'compression = "gzip"')) == plain
    assert len(packed) < len(plain)
    assert make(tmp_path / "default") != packed


def test_what_is_built_again_elsewhere_at_another_time_is_the_same(tmp_path):
    once = make(tmp_path / "one")
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    script += "from pathlib import Path\nfrom test_initramfs_target import make\nmake(Path(sys.argv[1]))"
    environment = os.environ | {"TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "77", "LC_ALL": "C"}
    subprocess.run(
        [sys.executable, "-c", script, tmp_path / "other"], env=environment, umask=0o077, check=True
    )
    assert (tmp_path / "other/out/first-3.initrd").read_bytes() == once


def test_a_build_without_changes_has_nothing_to_do_and_a_lost_file_comes_back(tmp_path):
    archive = make(tmp_path)
    request = make_request(tmp_path / "first.toml", store=tmp_path / "store", output=tmp_path / "out")
    (again,) = build(request, Options(), environ={})
    assert {job.outcome for job in again.jobs} == {"cached"}
    (tmp_path / "out/first-3.initrd").unlink()
    (back,) = build(request, Options(), environ={})
    assert [job.job for job in back.jobs if job.outcome == "ran"] == ["targets.initramfs"]
    assert (tmp_path / "out/first-3.initrd").read_bytes() == archive


def test_the_digest_of_a_build_is_the_images_whatever_comes_first(tmp_path):
    make(tmp_path, "[targets.image]\n")
    request = make_request(tmp_path / "first.toml", store=tmp_path / "store", output=tmp_path / "out")
    (result,) = build(request, Options(force=None), environ={})
    by_target = {image.target: image for image in result.images}
    assert list(by_target) == ["initramfs", "image"]
    assert result.digest == by_target["image"].digest


XATTR = """
[nodes.rights]
kind = "attributes"
needs = ["tool"]
rules = [{ match = "/usr/bin/tool", capabilities = "cap_net_raw+ep" }]
"""


def test_extended_attributes_are_refused_unless_they_may_be_dropped(tmp_path):
    recipe = RECIPE.replace("[targets.initramfs]", XATTR + "[targets.initramfs]")
    with pytest.raises(BuildError, match="extended attributes of /usr/bin/tool") as caught:
        make(tmp_path / "one", recipe=recipe)
    assert caught.value.reason == "xattrs"
    assert make(tmp_path / "two", 'xattrs = "drop"', recipe=recipe)


def test_a_level_that_the_compression_lacks_is_refused(tmp_path):
    with pytest.raises(BuildError, match="no level 12"):
        make(tmp_path, 'compression = "gzip"\nlevel = 12')
