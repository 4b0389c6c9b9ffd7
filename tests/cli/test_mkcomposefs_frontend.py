"""The front ends mkcomposefs and composefs-info without the programs that they stand for."""

import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cfsbuild.cli import composefs_info, directory_dump, mkcomposefs
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes

DUMP = b"/ 4096 40755 2 0 0 0 1000.5 - - -\n/a 5 100644 1 0 0 0 1000.5 - hello -\n"


def run(*arguments):
    return mkcomposefs.main([*map(str, arguments)], "mkcomposefs")


def test_an_image_goes_to_a_file_and_its_digest_to_standard_output(tmp_path, capfd):
    (tmp_path / "dump").write_bytes(DUMP)
    assert run("--from-file", "--print-digest", tmp_path / "dump", tmp_path / "image") == 0
    image = (tmp_path / "image").read_bytes()
    assert len(image) == 16384
    out, err = capfd.readouterr()
    assert out == digest_bytes(image, Algorithm.SHA256).hex() + "\n"
    assert err == ""


class Stream:
    def __init__(self, data=b""):
        self.buffer = io.BytesIO(data)

    def isatty(self):
        return False

    def flush(self):
        pass


def test_podman_s_call_reads_standard_input_and_writes_standard_output(monkeypatch, tmp_path):
    (tmp_path / "dump").write_bytes(DUMP)
    run("--from-file", tmp_path / "dump", tmp_path / "image")
    out = Stream()
    monkeypatch.setattr(sys, "stdin", Stream(DUMP))
    monkeypatch.setattr(sys, "stdout", out)
    assert run("--from-file", "-", "-") == 0
    assert out.buffer.getvalue() == (tmp_path / "image").read_bytes()


def test_a_terminal_gets_no_image(monkeypatch, capsys, tmp_path):
    (tmp_path / "dump").write_bytes(DUMP)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run("--from-file", tmp_path / "dump", "-") == 1
    assert "stdout is a tty" in capsys.readouterr().err


def test_bad_input_leaves_the_old_image_alone_and_nothing_beside_it(tmp_path, capsys):
    image = tmp_path / "image"
    image.write_bytes(b"precious")
    (tmp_path / "dump").write_bytes(DUMP + b"/a 5 100644 1 0 0 0 1000.5 - hello -\n")
    assert run("--from-file", tmp_path / "dump", image) == 1
    assert image.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump", "image"]
    assert capsys.readouterr().err.startswith("mkcomposefs: /a appears twice")


def test_a_refused_line_is_named(tmp_path, capsys):
    (tmp_path / "dump").write_bytes(DUMP + b"/b 5 100644 1 0 0 0 1000.5 - hello!! -\n")
    assert run("--from-file", tmp_path / "dump", tmp_path / "image") == 1
    assert (
        f"mkcomposefs: {tmp_path}/dump: line 3: CONTENT: is 7 bytes long, SIZE says 5"
        in capsys.readouterr().err
    )


def test_strict_parsing_is_asked_for_by_the_environment(tmp_path, monkeypatch, capsys):
    (tmp_path / "dump").write_bytes(DUMP[:-1])
    assert run("--from-file", tmp_path / "dump", tmp_path / "image") == 0
    monkeypatch.setenv("CFS_PARSE_STRICT", "")
    assert run("--from-file", tmp_path / "dump", tmp_path / "image") == 1
    assert "the last line has no newline" in capsys.readouterr().err


def test_an_existing_file_keeps_its_mode_and_a_link_stays_a_link(tmp_path):
    (tmp_path / "dump").write_bytes(DUMP)
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    assert run("--from-file", tmp_path / "dump", tmp_path / "link") == 0
    assert (tmp_path / "link").is_symlink()
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o640
    assert (tmp_path / "real").stat().st_size == 16384


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    (tmp_path / "dump").write_bytes(DUMP)
    assert run("--from-file", tmp_path / "dump", "/dev/null") == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    (root / "d").mkdir(parents=True)
    (root / "d" / "big").write_bytes(b"b" * 5000)
    (root / "d" / "same").write_bytes(b"b" * 5000)
    (root / "small").write_bytes(b"s" * 64)
    os.utime(root / "small", ns=(5, 7_000_000_009))
    (root / "link").symlink_to("small")
    return root


def test_a_directory_is_dumped_with_its_times_and_digests(source, tmp_path, capfdbinary):
    assert run(source, tmp_path / "image") == 0
    assert composefs_info.main(["dump", str(tmp_path / "image")], "composefs-info") == 0
    lines = {line.split(b" ")[0]: line.split(b" ") for line in capfdbinary.readouterr().out.splitlines()}
    digest = digest_bytes(b"b" * 5000, Algorithm.SHA256).hex().encode()
    assert lines[b"/d/big"][8] == digest[:2] + b"/" + digest[2:]
    assert lines[b"/d/big"][10] == digest
    assert lines[b"/small"][7:10] == [b"7.9", b"-", b"s" * 64]
    assert lines[b"/link"][8] == b"small"
    assert lines[b"/d/same"][2] == b"100644"


def test_the_digest_store_gets_each_content_once(source, tmp_path):
    store = tmp_path / "store"
    assert run(f"--digest-store={store}", source, tmp_path / "image") == 0
    digest = digest_bytes(b"b" * 5000, Algorithm.SHA256).hex()
    assert [path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file()] == [
        f"{digest[:2]}/{digest[2:]}"
    ]
    assert (store / digest[:2] / digest[2:]).read_bytes() == b"b" * 5000
    assert stat.S_IMODE((store / digest[:2] / digest[2:]).stat().st_mode) == 0o644


def test_what_is_in_the_store_is_not_written_again(source, tmp_path):
    store = tmp_path / "store"
    run(f"--digest-store={store}", source, tmp_path / "image")
    (stored,) = [path for path in store.rglob("*") if path.is_file()]
    before = stored.stat()
    assert run(f"--digest-store={store}", source, tmp_path / "image") == 0
    assert (stored.stat().st_ino, stored.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_that_changes_between_hashing_and_copying_is_noticed(source, tmp_path, monkeypatch, capsys):
    def hash_then_change(*arguments, **options):
        values = list(original(*arguments, **options))
        (source / "d" / "big").write_bytes(b"c" * 5000)
        (source / "d" / "same").write_bytes(b"c" * 5000)
        return values

    original = directory_dump.ingest_in_order
    monkeypatch.setattr(directory_dump, "ingest_in_order", hash_then_change)
    store = tmp_path / "store"
    assert run(f"--digest-store={store}", source, tmp_path / "image") == 1
    assert "changed while it was read" in capsys.readouterr().err
    assert not (tmp_path / "image").exists()
    assert [path for path in store.rglob("*") if path.is_file()] == []


def test_a_store_that_is_no_directory_is_reported(source, tmp_path, capsys):
    (tmp_path / "store").write_bytes(b"")
    assert run(f"--digest-store={tmp_path / 'store'}", source, tmp_path / "image") == 1
    assert capsys.readouterr().err.startswith("mkcomposefs: cannot fill store: ")


def test_objects_are_listed_and_missing_ones_found(source, tmp_path, capfd):
    store = tmp_path / "store"
    run(f"--digest-store={store}", source, tmp_path / "image")
    name = f"{digest_bytes(b'b' * 5000, Algorithm.SHA256).hex()}"
    payload = f"{name[:2]}/{name[2:]}\n"
    image = str(tmp_path / "image")
    for arguments, expected in (
        (["objects", image], payload),
        (["missing-objects", image], payload),
        ([f"--basedir={store}", "missing-objects", image], ""),
        ([f"--basedir={tmp_path}", "missing-objects", image], payload),
    ):
        assert composefs_info.main(arguments, "composefs-info") == 0
        assert capfd.readouterr().out == expected


def test_a_backing_path_never_leads_out_of_the_base_directory(tmp_path, capfd):
    (tmp_path / "base").mkdir()
    (tmp_path / "outside").write_bytes(b"")
    (tmp_path / "dump").write_bytes(DUMP + b"/c 65 100644 1 0 0 0 0.0 /etc/passwd - -\n")
    run("--from-file", tmp_path / "dump", tmp_path / "image")
    arguments = [f"--basedir={tmp_path / 'base'}", "missing-objects", str(tmp_path / "image")]
    assert composefs_info.main(arguments, "composefs-info") == 0
    assert capfd.readouterr().out == "/etc/passwd\n"
    (tmp_path / "dump").write_bytes(DUMP + b"/b 65 100644 1 0 0 0 0.0 ../outside - -\n")
    assert run("--from-file", tmp_path / "dump", tmp_path / "image") == 1
    assert "leads out of the object directory" in capfd.readouterr().err


def test_a_damaged_image_is_an_error_and_no_traceback(tmp_path, capsys):
    (tmp_path / "image").write_bytes(b"\x9a\x62\x78\xd0" + bytes(5000))
    assert composefs_info.main(["ls", str(tmp_path / "image")], "composefs-info") == 1
    assert capsys.readouterr().err.startswith(f"composefs-info: Failed to load '{tmp_path}/image': ")


@pytest.mark.parametrize("command", ["ls", "dump", "objects", "missing-objects", "measure-file"])
@pytest.mark.parametrize(("kind", "why"), [("fifo", "Is a fifo"), ("directory", "Is a directory")])
def test_composefs_info_waits_for_nobody_to_write_into_a_fifo(tmp_path, capsys, command, kind, why):
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert composefs_info.main([command, str(path)], "composefs-info") == 1
    assert capsys.readouterr() == ("", f"composefs-info: Failed to open '{path}': {why}\n")


def test_composefs_info_reads_from_a_pipe():
    command = [sys.executable, "-m", "cfsbuild.cli.main", "composefs-info", "measure-file", "/dev/stdin"]
    done = subprocess.run(command, input=b"x", capture_output=True, check=True)
    assert done.stdout.decode().strip() == digest_bytes(b"x", Algorithm.SHA256).hex()


def test_the_front_ends_start_without_the_heavy_imports():
    code = (
        "import sys; from cfsbuild.cli.mkcomposefs import main; main(['--from-file', '-', '/dev/null'], 'mkcomposefs'); "
        "print(sorted({'click', 'networkx', 'jinja2', 'tqdm', 'cryptography', 'zstandard'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=DUMP, capture_output=True, check=True)
    assert done.stdout == b"[]\n"
