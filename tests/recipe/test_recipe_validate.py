"""Every problem of a recipe at once, each at its line, with advice."""

from __future__ import annotations

import pytest
from kinds import HEAD, load, problems, told

FILE = HEAD + '[nodes.n]\nkind = "file"\ntarget = "/a"\n'

WRONG = """
[image]
name = "demo"
formt = 1
[nodes.a]
kind = "fil"
[nodes.b]
kind = "file"
tagret = "/x"
owner = "12"
rules = [{ match = "[" }, { match = "a", mode = "99" }, 3]
needs = ["c", "bb", "b"]
[nodes.c]
kind = "file"
target = "/../x"
needs = ["d"]
[nodes.d]
kind = "file"
needs = ["b"]
content = "{{ zz }}"
target = "/x"
raw = "yes"
[targets.imge]
[extra]
"""


def test_everything_that_is_wrong_is_told_in_the_order_of_the_lines(write) -> None:
    assert told(write(WRONG)) == [
        "recipe.toml:4: unknown key `formt` in `image`",
        "recipe.toml:6: unknown node kind `fil`",
        "recipe.toml:7: `nodes.b` lacks the key `target`",
        "recipe.toml:9: unknown key `tagret` in `nodes.b`",
        "recipe.toml:10: `nodes.b.owner` is a name made of digits; write the number 12 without quotes",
        "recipe.toml:11: `nodes.b.rules.0.match` is not a pattern: glob '[' has a '[' that is never closed",
        'recipe.toml:11: `nodes.b.rules.1.mode` must be permission bits in octal, such as "0755"',
        "recipe.toml:11: `nodes.b.rules.2` must be a table, not an integer",
        "recipe.toml:12: node `b` needs `bb`, which does not exist",
        "recipe.toml:12: node `b` needs itself",
        "recipe.toml:12: nodes need each other in a circle: b → c → d → b",
        "recipe.toml:15: `nodes.c.target` must not contain `.` or `..` as a component",
        "recipe.toml:20: there is no variable `zz`",
        "recipe.toml:22: `nodes.d.raw` must be true or false, not a string",
        "recipe.toml:23: unknown target kind `imge`",
        "recipe.toml:24: unknown key `extra`",
    ]


def test_every_problem_says_what_to_do(write) -> None:
    silent = [problem.brief for problem in problems(write(WRONG)) if not problem.resolution]
    assert silent == []


@pytest.mark.parametrize(
    ("line", "brief", "resolution"),
    [
        ("mod = 1", "unknown key `mod` in `nodes.n`", "did you mean `mode`?"),
        ("need = []", "unknown key `need` in `nodes.n`", "did you mean `needs`?"),
        ("mode = 755", "`nodes.n.mode` must be a string, not an integer", "put it in quotes"),
        ('level = "3"', "`nodes.n.level` must be an integer, not a string", "write it without quotes"),
        ("level = -1", "`nodes.n.level` must be at least 0", ""),
        ("level = true", "`nodes.n.level` must be an integer, not a boolean", ""),
        ("level = 1.0", "`nodes.n.level` must be an integer, not a number", ""),
        ("raw = 1", "`nodes.n.raw` must be true or false, not an integer", ""),
        ('style = "c"', '`nodes.n.style` must be one of "a", "b", not a string', ""),
        ('rules = "x"', "`nodes.n.rules` must be an array, not a string", "write [ … ]"),
        ("xattrs = []", "`nodes.n.xattrs` must be a table, not an array", "write { KEY = VALUE, … }"),
        ("xattrs.a = 1", "`nodes.n.xattrs.a` must be a string, not an integer", "put it in quotes"),
        ("owner = 1.5", "`nodes.n.owner` must be a string or an integer, not a number", ""),
        ("owner = -1", "`nodes.n.owner` must be a number from 0 to 4294967294", ""),
        ("owner = 4294967295", "`nodes.n.owner` must be a number from 0 to 4294967294", ""),
        ('owner = "a:b"', "`nodes.n.owner` is not a name that a user or group can have", ""),
        ('tag = "X"', "`nodes.n.tag` must match ^[a-z]+$", "Lower-case letters."),
        ('rules = [{ match = "a", count = 10 }]', "`nodes.n.rules.0.count` must be at most 9", ""),
        ("rules = [{}]", "`nodes.n.rules.0` lacks the key `match`", 'add it, such as match = "bin/*"'),
        (
            'rules = [{ match = "a", mach = 1 }]',
            "unknown key `mach` in `nodes.n.rules.0`",
            "did you mean `match`?",
        ),
        ('source = ""', "`nodes.n.source` must not be empty", ""),
        (
            'replaces = ["a["]',
            "`nodes.n.replaces.0` is not a pattern: glob 'a[' has a '[' that is never closed",
            "",
        ),
        ('replaces = "a"', "`nodes.n.replaces` must be an array, not a string", "write [ … ]"),
        ("needs = [1]", "`nodes.n.needs.0` must be a string, not an integer", "put it in quotes"),
    ],
)
def test_one_wrong_value_gives_one_problem(write, line: str, brief: str, resolution: str) -> None:
    (problem,) = problems(write(FILE + line + "\n"))
    assert problem.brief == brief
    assert problem.origin.line == 6
    if resolution:
        assert problem.resolution == resolution


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("etc/x", "must be an absolute path inside the image, with a leading slash"),
        ("", "must be an absolute path inside the image, with a leading slash"),
        ("/a/../b", "must not contain `.` or `..` as a component"),
        ("/./b", "must not contain `.` or `..` as a component"),
        ("/a\\nb", "must not contain NUL or newline characters"),
        ("/" + "x" * 256, "has a file name of more than 255 bytes"),
        ("/" + "ä" * 128, "has a file name of more than 255 bytes"),
        ("/x" * 2048, "is longer than 4095 bytes"),
        ("/x" * 257, "is more than 256 levels deep"),
    ],
)
def test_paths_that_no_image_can_have_are_refused(write, target: str, says: str) -> None:
    text = HEAD + f'[nodes.n]\nkind = "file"\ntarget = "{target}"\n'
    assert told(write(text)) == [f"recipe.toml:5: `nodes.n.target` {says}"]


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("opt/app", 'write "/opt/app"'),
        ("./opt//ä ", 'write "/opt/ä "'),
        ("/opt/./app", 'write "/opt/app"'),
        ("../opt", "An absolute path inside the image."),
        ("", "An absolute path inside the image."),
    ],
)
def test_the_hint_for_a_path_is_what_to_write_where_that_is_plain(write, target: str, hint: str) -> None:
    (problem,) = problems(write(HEAD + f'[nodes.n]\nkind = "file"\ntarget = "{target}"\n'))
    assert problem.resolution == hint


@pytest.mark.parametrize("target", ["/", "/a//b/", "/" + "x" * 255, "/x" * 256, "/...", "/a b/ü"])
def test_paths_at_the_limits_are_accepted(write, target: str) -> None:
    text = HEAD + f'[nodes.n]\nkind = "file"\ntarget = "{target}"\n'
    assert load(write(text))[0].nodes["n"].params.target == target


def test_a_nul_that_only_rendering_makes_is_refused(write) -> None:
    text = HEAD + '[nodes.n]\nkind = "file"\ntarget = "/a{{ \'%c\' % 0 }}"\n'
    assert told(write(text)) == ["recipe.toml:5: `nodes.n.target` must not contain NUL or newline characters"]


@pytest.mark.parametrize("mode", ["755", "0755", "07777", "000"])
def test_modes_are_octal_strings(write, mode: str) -> None:
    assert load(write(FILE + f'mode = "{mode}"\n'))[0].nodes["n"].params.mode == mode


@pytest.mark.parametrize(
    "mode", ["", "8", "75", "0o755", "u+x", "017777", "0758", " 755", "\u0667\u0665\u0665"]
)
def test_other_modes_are_refused(write, mode: str) -> None:
    assert "must be permission bits in octal" in told(write(FILE + f'mode = "{mode}"\n'))[0]


def test_what_a_template_made_counts_as_a_number_where_one_is_wanted(write) -> None:
    text = HEAD + (
        '[vars]\nn = 7\nflag = true\n[nodes.n]\nkind = "file"\ntarget = "/a"\nlevel = "{{ n }}"\nowner = "{{ n }}"\n'
        'raw = "{{ flag }}"\nratio = "{{ n / 2 }}"\nmode = "{{ 600 }}"\ncontent = "{{ n }}"\n'
    )
    params = load(write(text))[0].nodes["n"].params
    # `raw` turns out to be true only after rendering: content was rendered.
    assert (params.level, params.owner, params.raw, params.ratio) == (7, 7, True, 3.5)
    assert (params.mode, params.content) == ("600", "7")


def test_needs_are_kept_in_order_and_once(write) -> None:
    text = (
        FILE
        + 'needs = ["b", "a", "b"]\n[nodes.a]\nkind="run"\nscript="x"\n[nodes.b]\nkind="run"\nscript="x"\n'
    )
    assert load(write(text))[0].nodes["n"].needs == ("b", "a")


def test_two_separate_circles_are_both_told(write) -> None:
    nodes = "".join(
        f'[nodes.{name}]\nkind = "run"\nscript = "x"\nneeds = ["{need}"]\n'
        for name, need in [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c"), ("e", "a")]
    )
    lines = told(write(HEAD + nodes))
    assert [line.partition(": ")[2] for line in lines] == [
        "nodes need each other in a circle: a → b → a",
        "nodes need each other in a circle: c → d → c",
    ]


def test_a_target_of_any_name_needs_a_kind_and_the_image_stays(write) -> None:
    (recipe,) = load(write(HEAD + '[targets.second]\nkind = "image"\ndump = false\n'))
    assert {name: target.params.dump for name, target in recipe.targets.items()} == {
        "image": True,
        "second": False,
    }


@pytest.mark.parametrize(
    "text",
    [
        "image = 1",
        "nodes = []",
        "nodes.a = 1",
        "targets = 1",
        "vars = 1",
        "matrix = 1",
        "profiles = 1",
        "include = 1",
        "profiles.a = 1",
        "[[nodes]]\nkind = 'file'",
        "nodes.a.kind = 1",
        "nodes.a = {}",
        "include = [[]]",
    ],
)
def test_a_section_of_another_type_is_a_problem(write, text: str) -> None:
    head = "" if text.startswith("image") else HEAD
    assert told(write(text + "\n" + head))
