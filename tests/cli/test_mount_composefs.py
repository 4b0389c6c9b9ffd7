import pytest

from cfsbuild.cli.mount_composefs import main, parse_options

TABLE = [
    ((), "No source path specified\nusage: mount.composefs [-t type]"),
    (("image",), "No mount path specified\nusage:"),
    (("/etc/passwd", "/mnt"), "No object dirs specified\nusage:"),
    (("-t", "ext4", "a", "b"), "mount.composefs: Unsupported fs type 'ext4'"),
    (("-o", "nodev", "a", "b"), "mount.composefs: Unsupported option nodev"),
    (("-o", "", "a", "b"), "mount.composefs: Unsupported option "),
    (("-o", "basedir", "a", "b"), "mount.composefs: No value specified for basedir option"),
    (("-o", "basedir=/tmp,ro=1", "a", "b"), "mount.composefs: Unsupported option ro=1"),
    (("-o", "basedir=", "a", "b"), "mount.composefs: Value for basedir option has incorrect format"),
    (("-o", "basedir=:", "a", "b"), "mount.composefs: Value for basedir option has incorrect format"),
    (("-o", "basedir=/tmp,upperdir=/tmp", "a", "b"), "mount.composefs: Both workdir and upperdir must be"),
    (
        ("-o", "basedir=/tmp", "/nonexistent", "/mnt"),
        "mount.composefs: Failed to open /nonexistent: No such file",
    ),
    (
        ("-o", "basedir=/tmp,idmap=/nonexistent", "/etc/passwd", "/mnt"),
        "mount.composefs: Failed to open userns",
    ),
    (
        ("-o", "basedir=/mnt", "/etc/passwd", "/mnt"),
        "mount.composefs: Failed to mount composefs /etc/passwd: Invalid",
    ),
    (
        ("-o", "basedir=/mnt,digest=zz", "/etc/passwd", "/mnt"),
        "mount.composefs: Failed to mount composefs /etc/passwd",
    ),
    (("-x",), "mount.composefs: "),
]


@pytest.mark.parametrize(("argv", "words"), TABLE)
def test_a_wrong_call_gets_the_c_tools_words_and_status(argv, words, capsys):
    assert main(list(argv), "mount.composefs") == 1
    assert capsys.readouterr().err.startswith(words)


def test_help_goes_to_standard_error_with_status_0(capsys):
    assert main(["-h"], "mount.composefs") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "basedir=PATH[:PATH]" in captured.err


def test_a_backslash_makes_a_comma_part_of_a_value():
    assert parse_options("basedir=/a\\,b,ro") == {"basedir": "/a,b", "ro": ""}
    assert parse_options("basedir=/a\\b") == {"basedir": "/a\\b"}
