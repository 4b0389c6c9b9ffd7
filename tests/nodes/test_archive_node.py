import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import stat
import subprocess
import tarfile

import msgspec
import pytest
import tar_building as tar
import zstandard
from node_helpers import Objects
from tar_building import END, member

from cfsbuild import limits
from cfsbuild.errors import BuildError, InputError, VerificationError
from cfsbuild.events import Note, Progress
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.nodes import archive
from cfsbuild.nodes.archive import KIND
from cfsbuild.nodes.kind import Fingerprint, Owners
from cfsbuild.tree.layer import encode_layer

SMALL = member(b"usr", kind=b"5", mode=0o755) + member(b"usr/f", b"hello", mode=0o640, uid=5, gid=6, mtime=7)
COMPRESSORS = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
XATTR = "user.mime_type"


@pytest.fixture
def rootfs(tmp_path):
    """Return a directory with everything that tar can hold."""
    root = tmp_path / "rootfs"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/small").write_bytes(b"s" * 64)
    (root / "usr/bin/large").write_bytes(os.urandom(3 << 20))
    (root / "usr/bin/medium").write_bytes(os.urandom(5000))
    (root / "usr/bin/su").write_bytes(b"su")
    (root / "usr/bin/su").chmod(0o4755)
    (root / "empty").touch()
    (root / "bin").symlink_to("usr/bin")
    (root / "long").symlink_to("/" + "t" * 300)
    (root / ("n" * 120)).mkdir()
    (root / ("n" * 120) / ("m" * 200)).write_bytes(b"deep")
    os.link(root / "usr/bin/medium", root / "usr/bin/again")
    os.link(root / "usr/bin/medium", root / "aaa")
    os.mkfifo(root / "fifo", 0o600)
    with (root / "sparse").open("wb") as file:
        for offset in (0, 1 << 20, 5 << 20, 9 << 20):
            file.seek(offset)
            file.write(b"data" * 1024)
        file.truncate(10 << 20)
    if os.geteuid() == 0:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
        os.chown(root / "usr/bin/small", 1234, 3_000_000)
    os.utime(root / "usr/bin/small", ns=(0, 1_600_000_000_123_456_789))
    os.utime(root / "empty", ns=(0, -5_000_000_000))
    return root


def state_of(root, *, whole_seconds):
    """Return what stands on the disk, as far as an image shows it."""
    found = {}
    for directory, names, files in os.walk(os.fsencode(root)):
        for name in [*names, *files]:
            path = os.path.join(directory, name)  # noqa: PTH118 (bytes)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            mtime = status.st_mtime_ns // 10**9 * 10**9 if whole_seconds else status.st_mtime_ns
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:  # noqa: PTH123 (bytes)
                    content = file.read()
            else:
                content = os.readlink(path) if kind == stat.S_IFLNK else b""  # noqa: PTH115 (bytes)
            device = status.st_rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0
            shown = path[len(os.fsencode(root)) :]
            found[shown] = (status.st_mode, status.st_uid, status.st_gid, mtime, content, device)
    return found


def state_of_layer(layer, sink):
    entries = dict(layer.entries)
    entries.update((link, layer.entries[first]) for link, first in layer.links.items())
    entries.pop(b"/", None)
    return {
        path: (
            inode.mode,
            inode.uid,
            inode.gid,
            inode.mtime_ns,
            sink.contents[inode.digest] if inode.digest else inode.content or inode.target,
            inode.rdev,
        )
        for path, inode in entries.items()
    }


GNU_TAR = [
    ["--format=gnu", "--hard-dereference"],
    ["--format=gnu"],
    ["--format=gnu", "--sparse"],
    ["--format=pax"],
    ["--format=pax", "--sparse", "--sparse-version=0.0"],
    ["--format=pax", "--sparse", "--sparse-version=0.1"],
    ["--format=pax", "--sparse", "--sparse-version=1.0"],
    ["--format=gnu", "--gzip", "--sort=inode"],
    ["--format=pax", "--xz"],
    ["--format=pax", "--bzip2"],
    ["--format=pax", "--zstd", "--sparse"],
    ["--format=gnu", "--label=rootfs", "--owner=root"],
]


@pytest.mark.parametrize("options", GNU_TAR, ids=" ".join)
def test_what_gnu_tar_packs_is_what_stood_on_the_disk(rootfs, tmp_path, options):
    if shutil.which("tar") is None or ("--zstd" in options and shutil.which("zstd") is None):
        pytest.skip("GNU tar or zstd is not installed")
    path = tmp_path / "archive"
    subprocess.run(["tar", "-C", rootfs, *options, "-cf", path, "."], check=True)
    sink = Objects()
    layer = tar.read_archive(path, sink)
    expected = state_of(rootfs, whole_seconds="--format=pax" not in options)
    if "--owner=root" in options:
        expected = {name: (value[0], 0, *value[2:]) for name, value in expected.items()}
    assert state_of_layer(layer, sink) == expected
    if "--hard-dereference" not in options:
        assert layer.links == {b"/usr/bin/again": b"/aaa", b"/usr/bin/medium": b"/aaa"}


@pytest.mark.parametrize("format", ["ustar", "pax"])
def test_what_bsdtar_packs_is_what_stood_on_the_disk(rootfs, tmp_path, format):  # noqa: A002
    if shutil.which("bsdtar") is None:
        pytest.skip("bsdtar is not installed")
    for unfit in ("long", "disk", "empty", "usr/bin/small") if format == "ustar" else ():
        (rootfs / unfit).unlink(missing_ok=True)
    if format == "ustar":
        shutil.rmtree(rootfs / ("n" * 120))
    path = tmp_path / "archive"
    subprocess.run(["bsdtar", "-C", rootfs, f"--format={format}", "-cf", path, "."], check=True)
    sink = Objects()
    layer = tar.read_archive(path, sink)
    assert state_of_layer(layer, sink) == state_of(rootfs, whole_seconds=format == "ustar")


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_packs_is_what_stood_on_the_disk(rootfs, tmp_path, format):  # noqa: A002
    path = tmp_path / "archive"
    with tarfile.open(path, "w", format=format) as archive:
        archive.add(rootfs, arcname=".")
    sink = Objects()
    layer = tar.read_archive(path, sink)
    expected = state_of(rootfs, whole_seconds=True)
    assert {name: value[:3] + value[4:] for name, value in state_of_layer(layer, sink).items()} == {
        name: value[:3] + value[4:] for name, value in expected.items()
    }


def test_gnu_tar_keeps_extended_attributes(tmp_path):
    if shutil.which("tar") is None:
        pytest.skip("GNU tar is not installed")
    root = tmp_path / "rootfs"
    root.mkdir()
    (root / "f").write_bytes(b"x")
    try:
        os.setxattr(root / "f", XATTR, b"text/\0plain")
    except OSError:
        pytest.skip("the file system has no user attributes")
    path = tmp_path / "archive"
    subprocess.run(["tar", "-C", root, "--xattrs", "--xattrs-include=*", "-cf", path, "f"], check=True)
    assert tar.read_archive(path).entries[b"/f"].xattrs == ((XATTR.encode(), b"text/\0plain"),)


@pytest.mark.parametrize("format", COMPRESSORS)
@pytest.mark.parametrize("given", ["auto", "named"])
def test_every_compression_gives_the_same_layer(tmp_path, format, given):  # noqa: A002
    path = tmp_path / "archive"
    path.write_bytes(COMPRESSORS[format](SMALL + END))
    layer = tar.read_archive(path, format="auto" if given == "auto" else format)
    path.write_bytes(SMALL + END)
    assert encode_layer(layer) == encode_layer(tar.read_archive(path))


@pytest.mark.parametrize("format", ["tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
class TestCompressed:
    def reading(self, tmp_path, data, **options):
        path = tmp_path / "archive"
        path.write_bytes(data)
        return tar.read_archive(path, **options)

    def test_members_of_one_stream_are_joined(self, tmp_path, format):  # noqa: A002
        compress = COMPRESSORS[format]
        data = SMALL + END
        assert self.reading(tmp_path, compress(data[:700]) + compress(b"") + compress(data[700:])).entries

    def test_every_truncation_is_refused(self, tmp_path, format):  # noqa: A002
        data = COMPRESSORS[format](SMALL + END)
        for size in range(6, len(data)):
            with pytest.raises(InputError) as caught:
                self.reading(tmp_path, data[:size], format=format)
            assert caught.value.reason in {"truncated", "compression"}, size

    def test_trailing_garbage_is_refused(self, tmp_path, format):  # noqa: A002
        with pytest.raises(InputError) as caught:
            self.reading(tmp_path, COMPRESSORS[format](SMALL + END) + b"garbage" * 100)
        assert caught.value.reason in {"trailing-data", "compression"}

    def test_zero_padding_is_accepted(self, tmp_path, format):  # noqa: A002
        if format == "tar.zst":
            pytest.skip("zstd has no padding")
        data = COMPRESSORS[format](SMALL + END)
        assert self.reading(tmp_path, data + bytes(200_000)).entries
        assert self.reading(
            tmp_path, COMPRESSORS[format](SMALL) + bytes(8) + COMPRESSORS[format](END)
        ).entries
        with pytest.raises(InputError):
            self.reading(tmp_path, data + bytes(200_000) + b"x")

    def test_zeros_are_no_stream(self, tmp_path, format):  # noqa: A002
        for size in (0, 1, 200_000):
            with pytest.raises(InputError) as caught:
                self.reading(tmp_path, bytes(size), format=format)
            assert caught.value.reason in {"compression", "truncated"}

    def test_a_damaged_stream_is_refused(self, tmp_path, format):  # noqa: A002
        good = COMPRESSORS[format](SMALL + END)
        with pytest.raises(InputError):
            self.reading(
                tmp_path, good[: len(good) // 2] + bytes(8) + good[len(good) // 2 + 8 :], format=format
            )

    def test_another_format_is_refused(self, tmp_path, format):  # noqa: A002
        with pytest.raises(InputError):
            self.reading(tmp_path, SMALL + END, format=format)

    def test_bombs_stop_at_the_limit(self, tmp_path, format, monkeypatch):  # noqa: A002
        monkeypatch.setattr(limits, "EXPANSION_FREE_BYTES", 1 << 20)
        honest = member(b"zeros", bytes(900_000)) + END
        assert self.reading(tmp_path, COMPRESSORS[format](honest)).entries
        bomb = COMPRESSORS[format](member(b"zeros", bytes(20 << 20)) + END)
        if len(bomb) * limits.EXPANSION_RATIO > 20 << 20:
            monkeypatch.setattr(limits, "EXPANSION_RATIO", 10)
        with pytest.raises(InputError) as caught:
            self.reading(tmp_path, bomb)
        assert caught.value.reason == "limit"

    def test_zeros_behind_the_archive_count_too(self, tmp_path, format, monkeypatch):  # noqa: A002
        monkeypatch.setattr(limits, "INPUT_BYTES", 1 << 20)
        with pytest.raises(InputError) as caught:
            self.reading(tmp_path, COMPRESSORS[format](SMALL + END + bytes(2 << 20)))
        assert caught.value.reason == "limit"


def test_an_archive_is_limited_in_all(tmp_path, monkeypatch):
    path = tmp_path / "a.tar"
    path.write_bytes(SMALL + END)
    monkeypatch.setattr(limits, "INPUT_BYTES", len(SMALL + END))
    assert tar.read_archive(path).entries
    monkeypatch.setattr(limits, "INPUT_BYTES", len(SMALL + END) - 1)
    with pytest.raises(InputError, match="expands to more"):
        tar.read_archive(path)


def test_short_files_are_inline_and_others_are_objects(tmp_path):
    sizes = [0, 1, limits.INLINE_BYTES, limits.INLINE_BYTES + 1, 2**20, 2**20 + 1]
    path = tmp_path / "a.tar"
    path.write_bytes(b"".join(member(b"%d" % size, b"x" * size) for size in sizes) + END)
    sink = Objects()
    layer = tar.read_archive(path, sink)
    for size in sizes:
        inode = layer.entries[b"/%d" % size]
        assert inode.size == size
        assert (len(inode.content) == size) == (size <= limits.INLINE_BYTES)
        assert not inode.digest or inode.digest == digest_bytes(b"x" * size, Algorithm.SHA256)
    assert len(sink.contents) == 3


def test_the_fingerprint_is_the_archive_files_digest(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(SMALL + END)
    context = tar.context_for(path)
    fingerprint = KIND.gather(context, context.spec.params)
    assert fingerprint.digests == {"source": digest_bytes(SMALL + END, Algorithm.SHA256).hex()}


def test_the_expected_sha256_is_checked(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(SMALL + END)
    digest = hashlib.sha256(SMALL + END).hexdigest()
    assert tar.read_archive(path, sha256=digest.upper()).entries
    with pytest.raises(VerificationError) as caught:
        tar.read_archive(path, sha256="0" * 64)
    assert caught.value.exit_code == 5
    assert caught.value.reason == "digest-mismatch"
    assert digest in caught.value.details


def test_an_archive_that_changes_while_building_is_noticed(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(SMALL + END)
    context = tar.context_for(path)
    fingerprint = KIND.gather(context, context.spec.params)
    path.write_bytes(SMALL + END + bytes(512))
    with pytest.raises(BuildError, match="changed while building") as caught:
        KIND.produce(context, context.spec.params, fingerprint)
    assert caught.value.reason == "source-changed"
    with pytest.raises(BuildError):
        KIND.produce(context, context.spec.params, Fingerprint())


def names(tmp_path, data, **options):
    path = tmp_path / "a.tar"
    path.write_bytes(data + END)
    return list(tar.read_archive(path, **options).entries)


TREE = b"".join(
    member(name, kind=b"5" if name.endswith(b"/") else b"0", mode=0o711)
    for name in (
        b"top/",
        b"top/etc/",
        b"top/etc/a.conf",
        b"top/etc/b",
        b"top/usr/",
        b"top/usr/share/",
        b"top/usr/share/doc",
    )
)


def test_leading_components_can_be_stripped(tmp_path):
    assert names(tmp_path, TREE, strip_components=1) == [
        b"/etc",
        b"/etc/a.conf",
        b"/etc/b",
        b"/usr",
        b"/usr/share",
        b"/usr/share/doc",
    ]
    assert names(tmp_path, TREE, strip_components=3) == [b"/doc"]
    assert names(tmp_path, TREE, strip_components=9) == []


def test_links_are_stripped_like_names(tmp_path):
    data = member(b"top/f", b"x") + member(b"top/l", kind=b"1", link=b"top/f")
    path = tmp_path / "a.tar"
    path.write_bytes(data + END)
    assert tar.read_archive(path, strip_components=1).links == {b"/l": b"/f"}
    path.write_bytes(member(b"f", b"x") + member(b"top/l", kind=b"1", link=b"f") + END)
    with pytest.raises(InputError, match="strip_components"):
        tar.read_archive(path, strip_components=1)


def test_names_can_be_excluded_with_what_is_below(tmp_path):
    assert names(tmp_path, TREE, exclude=("/top/usr", "*.conf")) == [b"/top", b"/top/etc", b"/top/etc/b"]
    assert names(tmp_path, TREE, strip_components=1, exclude=("/etc",)) == [
        b"/usr",
        b"/usr/share",
        b"/usr/share/doc",
    ]


def test_included_names_keep_their_parents_as_the_archive_has_them(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(TREE + END)
    layer = tar.read_archive(path, include=("*.conf",))
    assert list(layer.entries) == [b"/top", b"/top/etc", b"/top/etc/a.conf"]
    assert layer.entries[b"/top/etc"].mode == stat.S_IFDIR | 0o711
    assert names(tmp_path, TREE, include=("/top/usr",), exclude=("doc",)) == [
        b"/top",
        b"/top/usr",
        b"/top/usr/share",
    ]


def test_contents_of_excluded_members_are_not_kept(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(member(b"f", b"x" * 100) + END)
    sink = Objects()
    assert tar.read_archive(path, sink, exclude=("f",)).entries == {}
    assert sink.contents == {}


def test_a_link_to_an_excluded_file_is_refused(tmp_path):
    data = member(b"f", b"x") + member(b"l", kind=b"1", link=b"f")
    with pytest.raises(InputError, match="hard link") as caught:
        names(tmp_path, data, exclude=("f",))
    assert "include" in caught.value.resolution


def test_the_target_becomes_the_archives_root(tmp_path):
    data = member(b"./", kind=b"5", mode=0o750) + member(b"f")
    assert names(tmp_path, data, target="/opt//app/") == [b"/opt/app", b"/opt/app/f"]
    with pytest.raises(InputError, match="long"):
        names(tmp_path, member(b"d" * 200), target="/" + "/".join(["t" * 250] * 16))


def test_everything_can_be_given_one_owner(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(SMALL + END)
    owners = Owners(uids={"root": 0, "app": 990}, gids={"root": 0, "app": 991})
    entries = tar.read_archive(path, owners=owners, owner="app").entries
    assert (entries[b"/usr/f"].uid, entries[b"/usr/f"].gid) == (990, 6)
    entries = tar.read_archive(path, owners=owners, owner=1, group="app").entries
    assert (entries[b"/usr/f"].uid, entries[b"/usr/f"].gid) == (1, 991)
    params = tar.context_for(path, owner="app", group=7).spec.params
    assert list(KIND.owner_names(params)) == [("owner", "user", "app")]


def test_numeric_owners_count_and_names_do_not(tmp_path):
    data = member(b"f", uid=12, fields=[(265, b"root"), (297, b"root")])
    path = tmp_path / "a.tar"
    path.write_bytes(data + END)
    assert tar.read_archive(path).entries[b"/f"].uid == 12


def test_text_acls_are_reported_not_silently_dropped(tmp_path):
    events = []
    path = tmp_path / "a.tar"
    path.write_bytes(tar.pax(tar.record(b"SCHILY.acl.access", b"user::rwx")) + member(b"f") + END)
    assert tar.read_archive(path, events=events).entries
    assert [event.text for event in events if isinstance(event, Note)] == [
        "POSIX ACLs of 1 archive members are in text form, which is not read"
    ]


def test_progress_is_told(tmp_path):
    events = []
    path = tmp_path / "a.tar"
    path.write_bytes(member(b"f", bytes(40 << 20)) + END)
    tar.read_archive(path, events=events)
    done = [event.done for event in events if isinstance(event, Progress)]
    assert done == sorted(done)
    assert len(done) >= 2
    assert {event.total for event in events} == {path.stat().st_size}


def test_a_missing_source_is_found_before_the_build(tmp_path):
    for path, what in ((tmp_path / "none", "cannot read"), (tmp_path, "not a regular file")):
        problems = list(KIND.check(tar.context_for(path).spec))
        assert len(problems) == 1
        assert what in problems[0].brief


def test_a_source_that_vanishes_is_an_error(tmp_path):
    context = tar.context_for(tmp_path / "none")
    with pytest.raises(BuildError, match="cannot read"):
        KIND.gather(context, context.spec.params)
    os.mkfifo(tmp_path / "fifo")
    context = tar.context_for(tmp_path / "fifo")
    with pytest.raises(BuildError, match="not a regular file"):
        KIND.gather(context, context.spec.params)


def test_the_order_of_members_does_not_show(tmp_path):
    members = [member(b"b", b"1"), member(b"a/x", b"2"), member(b"a", kind=b"5")]
    path = tmp_path / "a.tar"
    path.write_bytes(b"".join(members) + END)
    first = encode_layer(tar.read_archive(path))
    path.write_bytes(b"".join(reversed(members)) + END)
    assert encode_layer(tar.read_archive(path)) == first


def test_parameters_are_strict():
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"source": "a", "strip": 1}, archive.ArchiveParams)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"source": "a", "sha256": "abc"}, archive.ArchiveParams)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"source": "a", "strip_components": -1}, archive.ArchiveParams)
    assert KIND.path_keys == ("source",)
    assert not KIND.static


def test_a_kind_that_is_not_asked_for_costs_no_import():
    code = "import sys, cfsbuild.nodes.archive as a; print([m for m in ('zstandard', 'lzma', 'bz2', 'tarfile', 'tempfile') if m in sys.modules])"
    import sys  # noqa: PLC0415

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_stream_that_cannot_seek_is_not_needed(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w|gz") as packed:
        info = tarfile.TarInfo("f")
        info.size = 5
        packed.addfile(info, io.BytesIO(b"hello"))
    path = tmp_path / "a"
    path.write_bytes(buffer.getvalue())
    assert tar.read_archive(path).entries[b"/f"].content == b"hello"
