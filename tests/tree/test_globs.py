"""Globs, compared with independent matchers: git's and the standard library's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfsbuild.errors import InputError
from cfsbuild.tree.globs import compile_globs, literal_glob


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("/etc/passwd", [b"/etc/passwd"], [b"/etc/passwd-", b"/x/etc/passwd", b"/etc/passwd/x"]),
        ("etc/passwd", [b"/etc/passwd"], [b"/x/etc/passwd"]),
        ("*.pyc", [b"/a.pyc", b"/x/y/.pyc"], [b"/a.pyc/b", b"/a.py"]),
        ("/bin/*", [b"/bin/ls"], [b"/bin", b"/bin/a/b", b"/usr/bin/ls"]),
        ("/usr/**", [b"/usr/a", b"/usr/a/b"], [b"/usr", b"/usrx"]),
        ("/**", [b"/a", b"/a/b"], [b"/"]),
        ("**", [b"/a", b"/a/b"], [b"/"]),
        ("/", [b"/"], [b"/a"]),
        ("/usr/**/x", [b"/usr/x", b"/usr/a/x", b"/usr/a/b/x"], [b"/usr/ax", b"/x", b"/usr/x/y"]),
        ("/**/a?/**/b", [b"/ax/b", b"/q/ab/z/b"], [b"/a/b", b"/ax/c"]),
        ("/a[0-9]", [b"/a5"], [b"/ax", b"/a"]),
        ("/a[!0-9]b", [b"/axb"], [b"/a5b", b"/a/b"]),
        ("/a[]x]", [b"/a]", b"/ax"], [b"/a["]),
        ("/a[+-9]b", [b"/a.b"], [b"/a/b"]),
        (r"/a\*", [b"/a*"], [b"/ab", rb"/a\*"]),
        (r"/\*\*", [b"/**"], [b"/a", b"/a/b"]),
        ("/*a*b*", [b"/ab", b"/xaxbx"], [b"/ba", b"/a/b"]),
        ("/new\nline*", [b"/new\nline\n"], [b"/new"]),
        ("/caf\u00e9*", ["/caf\u00e9".encode()], [b"/cafe"]),
    ],
)
def test_a_glob_matches_what_its_rules_say(pattern, matching, others):
    matcher = compile_globs([pattern])
    assert [path for path in matching if not matcher(path)] == []
    assert [path for path in others if matcher(path)] == []


def test_several_globs_match_if_one_does_and_none_match_nothing():
    matcher = compile_globs(["/a", "/b/*", "*.c"])
    assert [p for p in (b"/a", b"/b/x", b"/z/y.c", b"/z") if matcher(p)] == [b"/a", b"/b/x", b"/z/y.c"]
    assert not compile_globs([])(b"/a")


@given(st.text("ab*?[]\\!-", min_size=1, max_size=6).map(lambda name: "/" + name))
def test_a_literal_glob_matches_its_path_only(path):
    matcher = compile_globs([literal_glob(path)])
    assert matcher(path.encode())
    assert not matcher(path.encode() + b"a")
    assert not matcher(b"/ab" if path != "/ab" else b"/a")


def test_the_locale_changes_nothing():
    code = (
        "from cfsbuild.tree.globs import compile_globs; from cfsbuild.tree.paths import show;"
        "print(compile_globs(['/caf\\u00e9*'])('/caf\\u00e9s'.encode()), ascii(show(b'/\\xc3\\xa9\\xff')))"
    )
    for locale in ("C", "C.UTF-8", "en_US.ISO-8859-1"):
        environment = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        answer = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert answer.stdout == "True '/\\xe9\\\\xff'\n"


@pytest.mark.parametrize(
    "pattern", ["", "/a/", "/a//b", "/a/../b", "./a", "/[a", "/[]", "/a\\", "/[z-a]", "/a\0b"]
)
def test_a_malformed_glob_is_an_input_error_that_quotes_it(pattern):
    with pytest.raises(InputError) as caught:
        compile_globs([pattern])
    assert caught.value.brief.startswith("glob")


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/" + "*a" * 120 + "b", b"/" + b"a" * 255),
        ("/" + "**/a/" * 60 + "b", b"/a" * 250),
        ("/" + "**/*a*a*a/" * 20 + "b", (b"/" + b"a" * 80) * 50),
        ("/" + "a*" * 120 + "[b]", b"/" + b"a" * 255),
    ],
)
def test_hostile_globs_answer_at_once(pattern, path):
    matcher = compile_globs([pattern])
    start = time.process_time()
    assert not matcher(path)
    assert time.process_time() - start < 0.2


names = st.text("ab.", min_size=1, max_size=4).filter(lambda name: name not in {".", ".."})
components = st.one_of(
    names, st.text("ab.*?", min_size=1, max_size=5), st.just("**"), st.just("[ab]*"), st.just("[!a]")
)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        components.filter(lambda c: c not in {".", ".."} and ("**" not in c or c == "**")),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
    st.lists(st.lists(names, min_size=1, max_size=4).map("/".join), min_size=1, max_size=80, unique=True),
)
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_globs_agree_with_git(tmp_path_factory, parts, slash, paths):
    """git's wildmatch with its attributes rules: same anchoring, and directories do not imply their content.

    Not asked: `**` within a name, where git looks at what follows a literal prefix as if it stood alone.
    """
    pattern = ("/" if slash else "") + "/".join(parts)
    repository = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", repository], check=True)
    (repository / ".gitattributes").write_text(f"{pattern} hit\n")
    answer = subprocess.run(
        ["git", "-C", repository, "check-attr", "-z", "--stdin", "hit"],
        input=b"".join(path.encode() + b"\0" for path in paths),
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    theirs = {name for name, value in zip(answer[0::3], answer[2::3], strict=False) if value == b"set"}
    matcher = compile_globs([pattern])
    ours = {path.encode() for path in paths if matcher(b"/" + path.encode())}
    assert ours == theirs
