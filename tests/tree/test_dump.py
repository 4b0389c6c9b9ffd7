"""composefs-dump text: what is read, what is refused and in which words, what is written."""

import contextlib
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfsbuild import limits
from cfsbuild.errors import InputError
from cfsbuild.tree.dump import (
    DumpEntry,
    format_entry,
    formatting,
    line_parser,
    parse_dump,
    parse_dump_bytes,
)
from cfsbuild.tree.dumpfields import leads_out

ROOT = b"/ 4096 40755 2 0 0 0 1000.5 - - -"
DIGEST = b"00112233445566778899aabbccddeeff" * 2

# A busy machine is no fault of the code: no example has a time limit.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def parse_one(line, **options):
    root, entry = parse_dump([ROOT, line], **options)
    assert root.path == b"/"
    return entry


def refusal(line, **options):
    with pytest.raises(InputError) as caught:
        parse_one(line, **options)
    return caught.value


def test_every_field_is_read():
    entry = parse_one(
        b"/big 5000 100644 1 10 20 0 -7.999999999 ab/cd - " + DIGEST + b" user.b=2 user.a=x\\x3dy"
    )
    assert entry == DumpEntry(
        b"/big",
        5000,
        0o100644,
        1,
        10,
        20,
        0,
        -7,
        999999999,
        b"ab/cd",
        None,
        bytes.fromhex(DIGEST.decode()),
        ((b"user.a", b"x=y"), (b"user.b", b"2")),
    )


def test_escapes_are_resolved_in_path_payload_content_and_xattrs():
    entry = parse_one(rb"/a\x20\\n 4 100644 1 0 0 0 0.0 - \x00\n\r\t - user.\x41=\xff")
    assert entry.path == rb"/a \n"
    assert entry.content == b"\0\n\r\t"
    assert entry.xattrs == ((b"user.A", b"\xff"),)


def test_an_escaped_hyphen_is_a_hyphen_and_a_bare_one_is_nothing():
    assert parse_one(rb"/l 1 120777 1 0 0 0 0.0 \x2d - -").payload == b"-"
    assert parse_one(b"/f 0 100644 1 0 0 0 0.0 - - -").payload is None


def test_a_hard_link_needs_no_other_fields():
    entry = parse_one(b"/h - @100644 - - - - - /target - -")
    assert entry.hardlink == b"/target"
    assert entry.payload is None


def test_the_leading_slash_may_be_missing_and_runs_of_slashes_are_one():
    assert parse_one(b"a//b 0 100644 1 0 0 0 0.0 - - -").path == b"/a/b"


def test_sha512_digests_are_read_when_asked_for():
    line = b"/f 65 100644 1 0 0 0 0.0 a - " + DIGEST * 2
    assert len(parse_one(line, digest_size=64).digest) == 64
    assert "DIGEST: has 128 characters instead of 64" in refusal(line).brief


REFUSED = {
    "GID: 'x' is not a number": b"/f 0 100644 1 0 x 0 0.0 - - -",
    "RDEV: 'x' is not a number": b"/f 0 20644 1 5 0 x 0.0 - - -",
    "UID: '+1' is not a number": b"/f 0 100644 1 +1 0 0 0.0 - - -",
    "UID: '-1' is not a number": b"/f 0 100644 1 -1 0 0 0.0 - - -",
    "UID: '4294967296' is out of range": b"/f 0 100644 1 4294967296 0 0 0.0 - - -",
    "SIZE: '18446744073709551616' is out of range": b"/f 18446744073709551616 10644 1 0 0 0 0.0 - - -",
    "SIZE: '' is not a number": b"/f  100644 1 0 0 0 0.0 - - -",
    "NLINK: '1_0' is not a number": b"/f 0 100644 1_0 0 0 0 0.0 - - -",
    "MODE: '100648' is not an octal number": b"/f 0 100648 1 0 0 0 0.0 - - -",
    "MODE: 644 has no valid file type": b"/f 0 644 1 0 0 0 0.0 - - -",
    "MODE: a directory cannot be a hard link": b"/h 0 @40755 1 0 0 0 0.0 /t - -",
    "MTIME: '1' is not SECONDS.NANOSECONDS": b"/f 0 100644 1 0 0 0 1 - - -",
    "MTIME: '1.-1' is not SECONDS.NANOSECONDS": b"/f 0 100644 1 0 0 0 1.-1 - - -",
    "MTIME: '1.1000000000' is out of range": b"/f 0 100644 1 0 0 0 1.1000000000 - - -",
    "PATH: '/d/' ends in a slash": b"/d/ 0 40755 1 0 0 0 0.0 - - -",
    "PATH: '..' cannot be a file name": b"/a/../b 0 100644 1 0 0 0 0.0 - - -",
    "PATH: empty path": b" 0 100644 1 0 0 0 0.0 - - -",
    "contains a NUL byte or a slash": rb"/a\x00b 0 100644 1 0 0 0 0.0 - - -",
    "PATH: file name is 256 bytes long": b"/" + b"n" * 256 + b" 0 100644 1 0 0 0 0.0 - - -",
    "DIGEST: has 2 characters instead of 64": b"/f 65 100644 1 0 0 0 0.0 a - ab",
    "is not hexadecimal": b"/f 65 100644 1 0 0 0 0.0 a - " + b"zz" * 32,
    "CONTENT: is 3 bytes long, SIZE says 4": b"/f 4 100644 1 0 0 0 0.0 - abc -",
    "CONTENT: is 5001 bytes long": b"/f 5001 100644 1 0 0 0 0.0 - " + b"c" * 5001 + b" -",
    "CONTENT: only a regular file can have content": b"/d 0 40755 1 0 0 0 0.0 - abc -",
    "PAYLOAD: a file with a size needs content or a backing path": b"/f 4 100644 1 0 0 0 0.0 - - -",
    "PAYLOAD: 'a/../b' leads out": b"/f 4 100644 1 0 0 0 0.0 a/../b - -",
    "PAYLOAD: a symbolic link needs a target": b"/l 0 120777 1 0 0 0 0.0 - - -",
    "PAYLOAD: is 4096 bytes long": b"/l 0 120777 1 0 0 0 0.0 " + b"p" * 4096 + b" - -",
    "XATTR: 'user.a' has no '='": b"/f 0 100644 1 0 0 0 0.0 - - - user.a",
    "XATTR: name '' is not 1 to 255 bytes": b"/f 0 100644 1 0 0 0 0.0 - - - =v",
    "bytes of xattrs on one inode": b"/f 0 100644 1 0 0 0 0.0 - - - user.a=" + b"v" * 32768,
    "LINE: has 10 fields": b"/f 0 100644 1 0 0 0 0.0 - -",
    "LINE: contains a NUL byte": b"/f 0 100644 1 0 0 0 0.0 - a\0 -",
    "LINE: is over": b"/f " + b"0" * limits.DUMP_LINE_BYTES + b" 100644 1 0 0 0 0.0 - - -",
    r"unknown escape \\q": rb"/\q 0 100644 1 0 0 0 0.0 - - -",
    r"\\x needs two hexadecimal digits": rb"/\x1 0 100644 1 0 0 0 0.0 - - -",
    "ends in a lone backslash": b"/a\\ 0 100644 1 0 0 0 0.0 - - -",
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_upstream_lets_pass_is_refused_with_line_and_field(message):
    error = refusal(REFUSED[message])
    assert message.replace("\\\\", "\\") in error.brief
    assert error.brief.startswith("dump: line 2: ")
    assert error.origin.line == 2


def test_strict_parsing_asks_for_what_the_c_tool_asks_for():
    assert "SIZE: is 9" in refusal(b"/l 9 120777 1 0 0 0 0.0 abc - -\n", strict=True).brief
    assert "RDEV: must be 0" in refusal(b"/f 0 100644 1 0 0 7 0.0 - - -\n", strict=True).brief
    assert "has no newline" in refusal(b"/f 0 100644 1 0 0 0 0.0 - - -", strict=True).brief
    assert parse_one(b"/l 3 120777 1 0 0 0 0.0 abc - -\n", strict=True).payload == b"abc"


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"/a 0 100644 1 0 0 0 0.0 - - -\n", b"/ 0 100644 1 0 0 0 0.0 - - -\n"]
)
def test_a_dump_begins_with_the_root_directory(text):
    with pytest.raises(InputError, match=r"line [01]"):
        list(parse_dump_bytes(text))


def test_lines_end_with_a_newline_or_at_the_end_and_a_carriage_return_is_no_end():
    text = ROOT + b"\n/l 1 120777 1 0 0 0 0.0 a\rb - -"
    assert [entry.payload for entry in parse_dump_bytes(text)] == [None, b"a\rb"]


def test_writing_follows_composefs_info():
    entry = DumpEntry(
        b"/a b\\",
        1,
        0o120777,
        1,
        0,
        0,
        0,
        -1,
        5,
        b"-",
        xattrs=((b"user.a=b", b"c=\xff"),),
    )
    assert format_entry(entry) == rb"/a\x20b\\ 1 120777 1 0 0 0 -1.5 \x2d - - user.a\x3db=c\x3d\xff"


name_bytes = st.binary(min_size=1, max_size=20).filter(
    lambda name: not {0, 47} & {*name} and name not in {b".", b".."}
)
numbers32 = st.integers(0, 2**32 - 1)
xattr_lists = st.dictionaries(
    st.binary(min_size=1, max_size=12).filter(lambda name: 0 not in name), st.binary(max_size=12), max_size=4
).map(lambda pairs: tuple(sorted(pairs.items())))


@st.composite
def entries(draw):
    kind = draw(st.sampled_from([stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO]))
    payload, content, digest, size, hardlink = None, None, None, 0, None
    if kind == stat.S_IFLNK:
        payload = draw(st.binary(min_size=1, max_size=20))
        size = len(payload)
    elif kind == stat.S_IFREG:
        choice = draw(st.sampled_from(["empty", "inline", "external", "link"]))
        if choice == "inline":
            content = draw(st.binary(min_size=1, max_size=70))
            size = len(content)
        elif choice == "external":
            payload = draw(st.binary(min_size=1, max_size=70).filter(lambda path: not leads_out(path)))
            digest = draw(st.none() | st.binary(min_size=32, max_size=32))
            size = draw(st.integers(1, 2**53))
        elif choice == "link":
            hardlink = b"/" + draw(name_bytes)
    return DumpEntry(
        b"/" + b"/".join(draw(st.lists(name_bytes, min_size=1, max_size=3))),
        size,
        kind | draw(st.integers(0, 0o7777)),
        draw(numbers32),
        draw(numbers32),
        draw(numbers32),
        draw(numbers32),
        draw(st.integers(-(2**63), 2**63 - 1)),
        draw(st.integers(0, 10**9 - 1)),
        payload,
        content,
        digest,
        draw(xattr_lists),
        hardlink,
    )


@patient
@given(entries())
def test_what_is_written_is_read_back(entry):
    assert parse_one(format_entry(entry)) == entry


@patient
@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([*sorted(REFUSED.values()), ROOT]), max_size=3).map(b"\n".join)
)
def test_garbage_gives_entries_or_an_input_error_and_nothing_else(text):
    with contextlib.suppress(InputError):
        for entry in parse_dump_bytes(text):
            assert entry.path.startswith(b"/")


def test_a_line_parser_speaks_as_the_whole_parser_does():
    parse = line_parser(name="x")
    assert parse(ROOT + b"\n", 1).path == b"/"
    with pytest.raises(InputError, match="x: line 7: UID: 'u' is not a number"):
        parse(b"/f 0 100644 1 u 0 0 0.0 - - -", 7)


@patient
@given(
    st.lists(st.binary(min_size=1, max_size=8), max_size=150), st.sampled_from([b"-", b"a b", b"plain", None])
)
def test_many_entries_are_written_as_each_alone(names, payload):
    entries = [
        DumpEntry(
            b"/" + name,
            1,
            0o120777,
            1,
            0,
            0,
            0,
            -1,
            2,
            payload,
            None,
            None,
            ((b"user.a", name),) * (n % 7 == 0),
        )
        for n, name in enumerate(names)
    ]
    written: list[bytes] = []
    assert list(formatting(iter(entries), written.append)) == entries
    assert b"".join(written) == b"".join(format_entry(entry) + b"\n" for entry in entries)
