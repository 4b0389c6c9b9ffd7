"""ls, cat, dump: what an image contains."""

import re
import subprocess

import pytest

from cfsbuild.cli import render
from cfsbuild.tree.dump import parse_dump_bytes


def test_ls_looks_like_ls_minus_l(lab, run):
    lab.image()
    assert run("ls", "a.cfs").lines == [
        "lrwxrwxrwx 1 0 0   7 2023-11-14 22:13 bin -> usr/bin",
        "drwxr-xr-x 2 0 0  58 1970-01-01 00:00 dev",
        "drwxr-xr-x 2 0 0 101 1970-01-01 00:00 etc",
        "drwxr-xr-x 3 0 0  42 1970-01-01 00:00 usr",
    ]


def test_ls_shows_devices_odd_names_owners_and_link_counts(lab, run):
    lab.image()
    assert run("ls", "a.cfs", "/dev").lines == [
        "crw-rw-rw- 1 0 0 1, 3 1970-01-01 00:00 null",
        "brw-rw---- 1 0 6 8, 1 1970-01-01 00:00 sda",
    ]
    etc = run("ls", "a.cfs", "etc/").lines
    assert etc[1] == "-rw-r--r-- 2   0   0  5 2023-11-14 22:13 hostname"
    assert etc[3] == r"-rw------- 1 990 990  4 1969-12-31 23:59 we\x0aird\xff"


def test_ls_takes_names_of_owners_from_the_image(lab, run):
    lab.image()
    lines = run("ls", "--names", "a.cfs", "/etc").lines
    assert lines[0].split()[:4] == ["-rw-r--r--", "1", "root", "root"]
    assert lines[3].split()[:4] == ["-rw-------", "1", "app", "app"]


def test_ls_follows_links_in_directories_and_at_a_trailing_slash(lab, run):
    lab.image()
    assert run("ls", "-1", "a.cfs", "/bin").lines == ["/bin"]
    assert run("ls", "-1", "a.cfs", "/bin/").lines == ["hostlink", "loop", "tool"]
    assert run("ls", "-1", "a.cfs", "/bin/tool").lines == ["/usr/bin/tool"]
    assert run("ls", "-1", "a.cfs", "/bin/..").lines == ["bin"]
    assert run("ls", "-1", "a.cfs", "../..").lines == ["bin", "dev", "etc", "usr"]


def test_ls_recursive_has_a_block_for_each_directory(lab, run):
    lab.image()
    lines = run("ls", "-R", "a.cfs").lines
    assert [line for line in lines if line.endswith(":")] == ["/:", "/dev:", "/etc:", "/usr:", "/usr/bin:"]
    assert run("ls", "-R", "-1", "a.cfs", "/usr").lines == [
        "/usr",
        "/usr/bin",
        "/usr/bin/hostlink",
        "/usr/bin/loop",
        "/usr/bin/tool",
    ]


def test_ls_tree_draws_lines_and_counts(lab, run):
    lab.image()
    lines = run("ls", "--tree", "-1", "a.cfs").lines
    assert lines[:4] == ["/", "├── bin -> usr/bin", "├── dev", "│   ├── null"]
    assert lines[-4:] == ["        ├── loop -> loop", "        └── tool", "", "4 directories, 10 others"]


def test_ls_human_sizes_and_a_single_file(lab, run):
    lab.image(edit=lambda text: text)
    line = run("ls", "-h", "a.cfs", "/usr/bin/tool").lines
    assert line == ["-rwsr-xr-x 1 0 0 1.1K 2023-11-14 22:13 /usr/bin/tool"]
    assert run("ls", "-d", "a.cfs", "/usr").lines == ["drwxr-xr-x 3 0 0 42 1970-01-01 00:00 /usr"]


def test_ls_json_says_everything_and_keeps_undecodable_names(lab, run):
    lab.image()
    document = run("ls", "--json", "-R", "a.cfs").json
    assert document["version"] == 1
    entries = {entry["path"]: entry for entry in document["entries"]}
    odd = entries["/etc/we\\x0aird\\xff"]
    assert bytes.fromhex(odd["path_hex"]) == b"/etc/we\nird\xff"
    assert odd["xattrs"] == {"user.a": "62"}
    assert odd["user"] == "app"
    assert odd["mtime_ns"] == -5 * 10**9
    assert entries["/dev/sda"]["rdev"] == [8, 1]
    assert entries["/usr/bin/hostlink"]["hardlink"] == "/etc/hostname"
    assert entries["/usr/bin/tool"]["digest"] in str(lab.tool).replace("/", "")
    assert entries["/etc/hostname"]["inline"] is True


def test_ls_colours_names_only_when_asked(lab, run):
    lab.image()
    assert b"\x1b" not in run("ls", "a.cfs").out
    coloured = run("ls", "--color=always", "a.cfs").text
    assert "\x1b[1;34mdev\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == run("ls", "a.cfs").text


def test_a_missing_path_is_a_usage_error_that_names_what_is_missing(lab, run):
    lab.image()
    outcome = run("ls", "a.cfs", "/usr/lib/x/y")
    assert outcome.status == 2
    assert outcome.err == "error: /usr/lib/x/y is not in a.cfs\n  /usr/lib does not exist\n"


def test_cat_writes_inline_files_and_verified_objects(lab, run):
    lab.image()
    assert run("cat", "a.cfs", "/bin/hostlink", "/bin/tool").out == b"edge\n" + lab.content


def test_cat_refuses_loops_directories_and_devices(lab, run):
    lab.image()
    loop = run("cat", "a.cfs", "/bin/loop")
    assert (loop.status, loop.out) == (2, b"")
    assert "too many levels of symbolic links" in loop.err
    assert "/usr is a directory" in run("cat", "a.cfs", "/usr").err
    assert "not a regular file" in run("cat", "a.cfs", "/dev/null").err


def test_cat_writes_nothing_of_a_damaged_object(lab, run):
    lab.image()
    lab.tool.chmod(0o600)
    lab.tool.write_bytes(lab.content.replace(b"hello", b"HELLO"))
    outcome = run("cat", "a.cfs", "/bin/tool")
    assert (outcome.status, outcome.out) == (5, b"")
    assert "the content of /usr/bin/tool is damaged" in outcome.err


def test_cat_says_where_it_looked_for_a_missing_object(lab, run):
    lab.image()
    lab.tool.rename("elsewhere")
    outcome = run("cat", "a.cfs", "/bin/tool")
    assert outcome.status == 7
    assert f"  {lab.store}/objects" in outcome.err
    other = lab.directory / "objs" / lab.tool.parent.name
    other.mkdir(parents=True)
    (lab.directory / "elsewhere").rename(other / lab.tool.name)
    assert run("cat", "--objects", "objs", "a.cfs", "/bin/tool").out == lab.content


def test_dump_is_the_dump_that_the_image_was_made_of(lab, run):
    lab.image()
    text = run("dump", "a.cfs").out
    assert text.endswith(b"\n")
    again = list(parse_dump_bytes(text))
    given = list(parse_dump_bytes(lab.dump()))
    assert [entry.path for entry in again] == [entry.path for entry in given]
    for old, new in zip(given, again, strict=True):
        if old.hardlink is None:
            assert (old.mode, old.uid, old.content, old.digest, old.xattrs, old.mtime_sec) == (
                new.mode, new.uid, new.content, new.digest, new.xattrs, new.mtime_sec
            )  # fmt: skip


@pytest.mark.parametrize("verb", ["ls", "dump", "cat"])
def test_what_is_no_image_is_refused_without_a_traceback(lab, run, verb):
    (lab.directory / "x.cfs").write_bytes(b"not an image")
    extra = ["/etc"] if verb == "cat" else []
    outcome = run(verb, "x.cfs", *extra)
    assert outcome.status == 1
    assert "x.cfs is neither a composefs image nor a dump" in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("cut", [4, 40, 1100, 4096, 9000])
def test_a_truncated_image_is_refused_by_name(lab, run, cut):
    image = lab.image()
    image.write_bytes(image.read_bytes()[:cut])
    outcome = run("ls", "a.cfs")
    assert outcome.status == 1
    assert outcome.err.startswith("error: a.cfs: ")


def test_a_dump_stands_for_the_image_that_it_describes(lab, run):
    (lab.directory / "a.dump").write_bytes(lab.dump())
    assert run("cat", "a.dump", "/etc/hostname").out == b"edge\n"
    assert run("ls", "-1", "a.dump", "/usr/bin").lines == ["hostlink", "loop", "tool"]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1.0K"), (1025, "1.1K"), (10 * 1024, "10K"), (1047552, "1023K"),
     (1047553, "1.0M"), (2**30, "1.0G"), (5 * 2**60, "5.0E"), (1500 * 2**60, "1500E")],
)  # fmt: skip
def test_human_sizes_are_those_of_ls(size, text):
    assert render.human_size(size) == text


@pytest.mark.parametrize("size", [1, 1000, 1024, 1025, 9999, 10239, 10240, 10241, 123456, 1048576, 99999999])
def test_human_sizes_equal_what_ls_prints_for_such_a_file(tmp_path, size):
    with (tmp_path / "f").open("wb") as file:
        file.truncate(size)
    shown = subprocess.run(
        ["ls", "-lh", "f"],
        cwd=tmp_path,
        capture_output=True,
        check=True,
        text=True,
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
    ).stdout.split()[4]
    assert render.human_size(size) == shown


@pytest.mark.parametrize(
    "seconds",
    [0, -1, -5, 86399, 86400, 951782400, 1709164800, 1767225600, 4102444800, -62135596800, 253402300799],
)
def test_times_equal_what_date_prints(seconds):
    shown = subprocess.run(
        ["date", "-u", "-d", f"@{seconds}", "+%Y-%m-%d %H:%M"], capture_output=True, check=True, text=True
    ).stdout.strip()
    assert render.utc_time(seconds) == shown


def test_times_that_no_calendar_has_are_shown_as_numbers():
    assert render.utc_time(2**62) == f"@{2**62}"
    assert render.utc_time(-(2**62)) == f"@{-(2**62)}"


def test_a_damaged_dump_is_refused_with_its_line(lab, run):
    (lab.directory / "a.dump").write_bytes(lab.dump(lambda text: text.replace("40755 2", "4x755 2", 1)))
    outcome = run("ls", "a.dump")
    assert outcome.status == 1
    assert outcome.err.startswith("a.dump:3: error: ")


def test_dumps_with_sha512_digests_are_read(lab, run):
    digest = "ab" * 64
    line = f"/f 100 100644 1 0 0 0 0.0 {digest[:2]}/{digest[2:]} - {digest}\n"
    (lab.directory / "a.dump").write_text(f"/ 4096 40755 2 0 0 0 0.0 - - -\n{line}")
    assert run("ls", "--json", "a.dump").json["entries"][0]["digest"] == digest
