"""verify, import, export: images come in checked, and go out complete."""

import io
import os
import shutil
import subprocess
import tarfile

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsbuild.cli import tar_writer
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store.store import Store
from cfsbuild.tree.dump import DumpEntry


def damage(path, content):
    path.chmod(0o600)
    path.write_bytes(content)


def test_verify_says_ok_and_what_it_read(lab, run):
    lab.image()
    outcome = run("verify", "a.cfs")
    assert outcome.status == 0
    assert outcome.lines[0] == "a.cfs: ok"
    assert outcome.lines[2] == "  objects  1 object, 1.1 KiB read"
    assert run("verify", "-q", "a.cfs") == (0, b"", "")


def test_verify_finds_that_a_size_in_the_image_is_not_that_of_the_object(lab, run):
    size = str(len(lab.content))
    lab.image(edit=lambda text: text.replace(f"/tool {size}", "/tool 77777"))
    outcome = run("verify", "--json", "a.cfs")
    assert outcome.status == 5
    assert [fault["reason"] for fault in outcome.json["faults"]] == ["object-size"]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda lab: lab.tool.unlink(), "object-missing"),
        (lambda lab: damage(lab.tool, lab.content[:-1] + b"!"), "object-damaged"),
        (lambda lab: damage(lab.tool, b""), "object-damaged"),
        (lambda lab: shutil.rmtree(lab.store), "object-missing"),
    ],
)
def test_verify_finds_what_is_wrong_with_objects(lab, run, harm, reason):
    lab.image()
    harm(lab)
    outcome = run("verify", "a.cfs")
    assert outcome.status == 5
    assert "/usr/bin/tool" in outcome.err
    document = run("verify", "--json", "a.cfs")
    assert document.status == 5
    assert document.json["ok"] is False
    assert [fault["reason"] for fault in document.json["faults"]] == [reason]
    assert run("verify", "--structure", "a.cfs").status == 0


def test_verify_compares_with_the_digest_that_is_given(lab, run):
    lab.image()
    right = run("verify", "--json", "a.cfs").json["digest"]
    assert run("verify", "--digest", right, "a.cfs").status == 0
    outcome = run("verify", "--json", "--digest", "0" * 64, "a.cfs")
    assert outcome.status == 5
    assert outcome.json["faults"][0]["reason"] == "image-digest"


@pytest.mark.parametrize("offset", [1024, 1152, 1500, 5000, 17000])
def test_verify_refuses_an_image_with_a_flipped_bit(lab, run, offset):
    image = lab.image()
    data = bytearray(image.read_bytes())
    data[offset] ^= 1
    image.write_bytes(data)
    outcome = run("verify", "--digest", run("verify", "--json", lab.image("b.cfs")).json["digest"], "a.cfs")
    assert outcome.status in {1, 5}
    assert "error: a.cfs" in outcome.err


def test_verify_warns_of_files_without_a_digest(lab, run):
    lab.image(edit=lambda text: text.replace(f" - {lab.tool.parent.name}{lab.tool.name}", " - -"))
    assert "  warning  1 file without a digest: nothing vouches for them" in run("verify", "a.cfs").lines


def test_an_imported_image_is_found_by_name_digest_and_prefix(lab, run):
    lab.image()
    outcome = run("import", "a.cfs", "--name", "os/stable")
    digest = outcome.text.strip()
    assert outcome.status == 0
    assert len(digest) == 64
    names = [run("ls", "-1", name, "/usr/bin").lines for name in ("os/stable", digest, digest[:12])]
    assert names == [["hostlink", "loop", "tool"]] * 3
    assert run("explain", "os/stable", "a.cfs").status == 0
    with Store.open(lab.store) as store:
        assert store.refs() == {"os/stable": bytes.fromhex(digest)}


def test_a_dump_becomes_the_image_that_it_describes(lab, run):
    lab.image()
    (lab.directory / "d.dump").write_bytes(lab.dump())
    assert run("import", "d.dump").text == run("import", "a.cfs", "--name", "x").text
    assert run("import", "--format", "0", "d.dump").text != run("import", "a.cfs").text


def test_an_import_without_its_objects_is_refused_and_leaves_no_trace(lab, run):
    lab.image()
    shutil.copytree(lab.store / "objects", "elsewhere")
    lab.tool.unlink()
    outcome = run("import", "a.cfs")
    assert outcome.status == 7
    assert "/usr/bin/tool" in outcome.err
    with Store.open(lab.store) as store:
        assert (store.refs(), store.images()) == ({}, [])
    assert run("import", "--json", "--objects", "elsewhere", "a.cfs").json["added"] == 1
    assert run("cat", "a", "/bin/tool").out == lab.content
    lab.tool.unlink()
    assert run("import", "--json", "--allow-missing", "a.cfs").json["missing"] == 1


def test_an_object_that_is_not_what_its_name_says_is_not_imported(lab, run):
    lab.image()
    shutil.copytree(lab.store / "objects", "elsewhere")
    lab.tool.unlink()
    damage(lab.directory / "elsewhere" / lab.tool.parent.name / lab.tool.name, b"evil")
    outcome = run("import", "--objects", "elsewhere", "a.cfs")
    assert outcome.status == 5
    assert "damaged" in outcome.err
    with Store.open(lab.store) as store:
        assert store.images() == []


def test_a_hostile_image_is_not_imported(lab, run):
    image = lab.image()
    data = bytearray(image.read_bytes())
    data[1024 + 14] ^= 0x40
    image.write_bytes(data)
    assert run("import", "a.cfs").status in {1, 5}
    with Store.open(lab.store) as store:
        assert store.images() == []


def test_a_name_that_no_image_can_have_is_a_usage_error(lab, run):
    lab.image()
    outcome = run("import", "--name", "../x", "a.cfs")
    assert outcome.status == 2
    assert "cannot name an image" in outcome.err


def test_unknown_names_are_answered_with_those_that_exist(lab, run):
    lab.image()
    run("import", "a.cfs", "--name", "gateway-1")
    outcome = run("ls", "gatewy-1")
    assert outcome.status == 2
    assert "images there: gateway-1" in outcome.err


def test_exported_files_are_what_is_in_the_store(lab, run):
    image = lab.image()
    run("import", "a.cfs", "--name", "x")
    assert run("export", "x", "-", "--format", "image").out == image.read_bytes()
    assert run("export", "x", "y.cfs").status == 0
    assert (lab.directory / "y.cfs").read_bytes() == image.read_bytes()
    assert run("export", "x", "y.dump").status == 0
    assert (lab.directory / "y.dump").read_bytes() == run("dump", "x").out


def test_a_device_or_a_link_is_written_to_and_never_replaced(lab, run):
    image = lab.image()
    (lab.directory / "link.cfs").symlink_to("/dev/null")
    assert run("export", "a.cfs", "link.cfs").status == 0
    assert (lab.directory / "link.cfs").is_char_device()
    (lab.directory / "other.cfs").symlink_to("real")
    assert run("export", "a.cfs", "other.cfs").status == 0
    assert (lab.directory / "other.cfs").is_symlink()
    assert (lab.directory / "real").read_bytes() == image.read_bytes()


def test_an_exported_directory_has_image_and_objects_and_can_be_imported_elsewhere(lab, run, tmp_path):
    image = lab.image()
    run("import", "a.cfs", "--name", "os/x")
    outcome = run("export", "--json", "os/x", "out/")
    assert (outcome.json["objects_copied"], outcome.json["objects_present"]) == (1, 0)
    assert (lab.directory / "out/os-x.cfs").read_bytes() == image.read_bytes()
    assert run("export", "--json", "os/x", "out/").json["objects_present"] == 1
    Store.init(tmp_path / "other").close()
    arguments = ("--store", tmp_path / "other")
    assert "--objects out/objects" in run("import", *arguments, "out/os-x.cfs").err
    assert run("import", *arguments, "--objects", "out/objects", "out/os-x.cfs").status == 0
    assert run("verify", *arguments, "os-x").status == 0


def test_an_object_of_another_size_in_the_directory_is_replaced(lab, run):
    lab.image()
    run("export", "a.cfs", "out/")
    (exported,) = (lab.directory / "out" / "objects").glob("*/*")
    damage(exported, b"short")
    assert run("export", "--json", "a.cfs", "out/").json["objects_copied"] == 1
    assert exported.read_bytes() == lab.content


def test_a_failed_export_leaves_nothing_behind(lab, run):
    lab.image()
    lab.tool.unlink()
    assert run("export", "a.cfs", "y.tar").status == 7
    assert [path.name for path in lab.directory.iterdir()] == ["a.cfs"]


def test_where_to_export_must_be_clear(lab, run):
    lab.image()
    assert run("export", "a.cfs", "thing").status == 2
    assert run("export", "a.cfs", "-").status == 2
    assert run("export", "a.cfs", "-", "--format", "dir").status == 2


def test_an_exported_tar_has_every_path_as_the_image_says(lab, run):
    lab.image()
    data = run("export", "a.cfs", "-", "--format", "tar").out
    assert data == run("export", "a.cfs", "-", "--format", "tar").out
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        members = {member.name: member for member in archive.getmembers()}
        tool = archive.extractfile("usr/bin/tool").read()
    assert tool == lab.content
    assert (members["usr/bin/tool"].mode, members["usr/bin/tool"].mtime) == (0o4755, 1700000000)
    assert members["usr/bin/hostlink"].linkname == "etc/hostname"
    assert members["usr/bin/hostlink"].islnk()
    assert members["bin"].linkname == "usr/bin"
    assert (members["dev/sda"].devmajor, members["dev/sda"].devminor) == (8, 1)
    odd = members[os.fsdecode(b"etc/we\nird\xff")]
    assert (odd.uid, odd.gid, odd.mtime) == (990, 990, -5)
    assert odd.pax_headers["SCHILY.xattr.user.a"] == "b"


def test_gnu_tar_reads_the_exported_archive_without_a_warning(lab, run):
    lab.image()
    run("export", "a.cfs", "y.tar")
    done = subprocess.run(["tar", "--xattrs", "-tvf", "y.tar"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 15


names = (
    st.binary(min_size=1, max_size=130)
    .map(lambda b: b.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda b: b not in {b".", b".."})
)


@given(
    name=names,
    target=st.binary(min_size=1, max_size=200).map(lambda b: b.replace(b"\0", b"_")),
    owner=st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2)),
    mtime=st.tuples(st.integers(-(2**40), 2**40), st.integers(0, 10**9 - 1)),
    xattrs=st.dictionaries(
        st.from_regex(r"(user|trusted)\.[a-z=%]{1,20}", fullmatch=True).map(str.encode),
        st.binary(max_size=40),
        max_size=3,
    ),
    content=st.binary(max_size=1500),
)
@settings(max_examples=60, deadline=None)
def test_python_reads_back_what_was_written(  # noqa: PLR0917 (hypothesis passes by keyword)
    name, target, owner, mtime, xattrs, content
):
    root = DumpEntry(b"/", 0, 0o40755, 2, 0, 0, 0, 0, 0)
    link = DumpEntry(b"/" + name, len(target), 0o120777, 1, *owner, 0, *mtime, target)
    file = DumpEntry(
        b"/" + name + b"2",
        len(content),
        0o100640,
        1,
        *owner,
        0,
        *mtime,
        None,
        content,
        None,
        tuple(sorted(xattrs.items())),
    )
    data = b"".join(tar_writer.tar_chunks([root, link, file], lambda entry: [entry.content]))
    assert len(data) % tar_writer.RECORD == 0
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", errors="surrogateescape") as archive:
        _, first, second = archive.getmembers()
        assert archive.extractfile(second).read() == content
    assert os.fsencode(first.name) == name
    assert os.fsencode(first.linkname) == target
    assert os.fsencode(second.name) == name + b"2"
    assert (second.uid, second.gid) == owner
    assert abs(float(second.mtime) - (mtime[0] + mtime[1] / 1e9)) < 1e-3
    for key, value in xattrs.items():
        keyword = "SCHILY.xattr." + key.decode().replace("%", "%25").replace("=", "%3D")
        assert second.pax_headers[keyword].encode(errors="surrogateescape") == value


def test_a_content_of_another_size_is_an_error_not_a_corrupt_archive():
    file = DumpEntry(b"/f", 5, 0o100644, 1, 0, 0, 0, 0, 0, None, b"12345")
    with pytest.raises(Exception, match="has 5 bytes in the image, but 4"):
        list(tar_writer.tar_chunks([file], lambda _: [b"1234"]))


def test_sockets_are_left_out_of_an_archive_and_that_is_said(lab, run):
    lab.image(edit=lambda text: text + "/usr/bin/zsock 0 140755 1 0 0 0 0.0 - - -\n")
    outcome = run("export", "a.cfs", "y.tar")
    assert outcome.status == 0
    assert "1 socket left out" in outcome.err
    assert (
        "zsock"
        not in subprocess.run(["tar", "-tf", "y.tar"], capture_output=True, text=True, check=True).stdout
    )


def test_a_foreign_store_or_none_is_named_in_the_error(lab, run, tmp_path):
    outcome = run("ls", "--json", "--store", tmp_path / "nowhere", "x")
    assert outcome.status == 7
    assert msgspec.json.decode(outcome.err)["error"]["reason"] == "no-store"


def test_replacing_a_reference_is_said(lab, run):
    lab.image()
    first = run("import", "a.cfs", "--name", "x")
    assert "stood for another image" not in first.err
    lab.image("b.cfs", lambda text: text.replace("edge", "gate"))
    assert (
        f"note: x stood for another image, {first.text.strip()}" in run("import", "b.cfs", "--name", "x").err
    )


def test_an_empty_image_in_a_sha512_store_has_the_digest_of_that_store(lab, run, tmp_path):
    Store.init(tmp_path / "wide", Algorithm.SHA512).close()
    (lab.directory / "e.dump").write_text("/ 4096 40755 2 0 0 0 0.0 - - -\n")
    arguments = ("--store", tmp_path / "wide")
    digest = run("import", *arguments, "e.dump").text.strip()
    assert len(digest) == 128
    outcome = run("verify", "--json", *arguments, "e")
    assert (outcome.status, outcome.json["digest"]) == (0, digest)
    assert run("export", *arguments, "e", "e.cfs").status == 0
    assert run("verify", "--digest", digest, "e.cfs").status == 0


@pytest.mark.parametrize("digest", ["", "abc", "g" * 64, "0" * 63])
def test_what_is_no_digest_is_a_usage_error(lab, run, digest):
    lab.image()
    outcome = run("verify", "--digest", digest or "-", "a.cfs")
    assert outcome.status == 2
    assert "is not an fs-verity digest" in outcome.err
