"""Templates: what they may do, what they may not, and what they cost at most."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds import HEAD, load, problems, told

from cfsbuild.errors import Origin, RecipeError
from cfsbuild.recipe import bounded
from cfsbuild.recipe.template import Renderer, is_simple, render, render_file

HERE = Origin("recipe.toml", 7, "nodes.n.content")


def node(content: str) -> str:
    return (
        HEAD
        + f"[vars]\nitems = ['a', 'b']\nn = 3\n[nodes.n]\nkind = 'file'\ntarget = '/a'\ncontent = '''{content}'''\n"
    )


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ n }}", "3"),
        ("{{ n + 1 }}-{{ n * 'ab' }}-{{ 2 ** n }}", "4-ababab-8"),
        ("{% for i in items %}{{ loop.index }}{{ i }}\n{% endfor %}", "1a\n2b\n"),
        ("{{ items | join(',') }} {{ items | map('upper') | join }}", "a,b AB"),
        ("{{ missing | default('none') }}{% if other is defined %}x{% endif %}", "none"),
        ("{{ '%05d' % n }} {{ 'x' ~ n }} {{ '<&>' }}", "00003 x3 <&>"),
        ("{{ {'b': 1, 'a': '<'} | tojson }}", '{"a": "<", "b": 1}'),
        ("{% raw %}{{ n }}{% endraw %}{# note #}\n", "{{ n }}\n"),
        ("{{ items | map('upper') }}", "['A', 'B']"),
        ("{% set x = n %}{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(x) }}", "<3>"),
        ("{{ range(3) | list }} {{ namespace(a=1).a }}", "[0, 1, 2] 1"),
    ],
)
def test_templates_are_jinja2(write, template: str, text: str) -> None:
    assert load(write(node(template)))[0].nodes["n"].params.content == text


def test_scripts_and_raw_content_are_never_rendered(write) -> None:
    text = HEAD + (
        "[nodes.n]\nkind = 'file'\ntarget = '/a'\nraw = true\ncontent = '{{ x }}{%'\n"
        "[nodes.r]\nkind = 'run'\nscript = 'echo ${#a[@]} {{ x }} {%'\n"
    )
    (recipe,) = load(write(text))
    assert recipe.nodes["n"].params.content == "{{ x }}{%"
    assert recipe.nodes["r"].params.script == "echo ${#a[@]} {{ x }} {%"


@pytest.mark.parametrize(
    ("template", "brief"),
    [
        ("{{ ''.__class__ }}", "template: access to attribute '__class__' of 'str' object is unsafe."),
        ("{{ items.append('c') }}", "template: "),
        ("{{ lipsum() }}", "there is no variable `lipsum`"),
        ("{{ items | random }}", "template: No filter named 'random'."),
        ("{{ cycler('a') }}", "there is no variable `cycler`"),
        ("{{ range }}", "template: a function has no text; call it or use a filter"),
        ("{{ n.real.real.foo }}", "template: 'int object' has no attribute 'foo'"),
        ("{{ 1 / 0 }}", "template: division by zero"),
        ("{{ n['x'] }}", "template: "),
        ("{{ items | nofilter }}", "template: No filter named 'nofilter'."),
        ("{% if %}", "template: Expected an expression, got 'end of statement block'"),
        ("{% include 'x' %}", "a template in a recipe cannot include files"),
        ("{% include n %}", "a template includes another whose name is not written out"),
        ("{{ 'a' * 10**9 }}", "template: the result would be too large"),
        ("{{ [0] * 10**9 }}", "template: the result would be too large"),
        ("{{ 9 ** (9 ** 9) }}", "template: the result of ** would be too large"),
        ("{{ 2 ** 2000 * 2 ** 2000 * 2 ** 2000 }}", "template: the result of * would be too large"),
        ("{{ ('a' * 40_000_000 + 'a' * 40_000_000) | length }}", "template: the result would be too large"),
        ("{{ '%999999999s' % 'a' }}", "template: a width in a format must be at most 1000"),
        ("{{ '%.*f' % (999999999, 1.0) }}", "template: a width in a format must be at most 1000"),
        (
            "{{ range(10**9) | list }}",
            "template: Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).",
        ),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "a template takes too much memory"),
        ("{{" + "(" * 5000 + ")" * 5000 + "}}", "a template is nested too deeply"),
        ("{{ n", "template: "),
        ("{{ " + "9" * 5000 + " }}", "template: Exceeds the limit (4300 digits)"),
        ("{% for i in items %}" * 30 + "{% endfor %}" * 30, "template: too many statically nested blocks"),
        ("{% block a %}{% endblock %}{% block a %}{% endblock %}", "template: block 'a' defined twice"),
        ("{{ '\\ud800' }}", "a template gives half of a character"),
        ("{% extends 'x' %}", "a template in a recipe cannot include files"),
    ],
)
def test_what_a_template_may_not_do_is_told_at_its_line(write, template: str, brief: str) -> None:
    (line,) = told(write(node(template)))
    assert line.startswith(f"recipe.toml:9: {brief}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ n | nofilter }}",
        "{{ " + "9" * 5000 + " }}",
        "{{ " + "(" * 9000,
        "{% if",
        "{{ a.b.c }}",
        "{% block a %}",
    ],
)
def test_a_bad_template_in_a_variable_is_told_at_its_line(write, template: str) -> None:
    lines = told(write(HEAD + f"[vars]\nn = 1\na = '''{template}'''\n"))
    assert [line.partition(": ")[0] for line in lines] == ["recipe.toml:5"]


@pytest.mark.parametrize(
    "bomb",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'a' * 10000 }}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{{ 'a' | center(10**9) }}{{ 'a' | indent(10**9) }}",
        "{{ ('a,' * 9999999).split(',') | length }}" * 9,
        "{{ 'a'.ljust(10**10) }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
    ],
    ids=["loops", "output", "doubling", "lists", "filters", "split", "methods", "format", "replace"],
)
def test_a_bomb_is_stopped_and_told_at_its_line(write, monkeypatch, bomb: str) -> None:
    monkeypatch.setattr(bounded, "CPU_SECONDS", 1)
    monkeypatch.setattr(bounded, "MEMORY_BYTES", 256 * 2**20)
    began = time.monotonic()
    (problem,) = problems(write(node(bomb)))
    assert problem.origin.line == 9
    assert problem.brief in {
        "a template takes too much time or memory",
        "a template takes too much memory",
        "a template gives more than 64 MiB of text",
    } or problem.brief.startswith("template: ")
    assert time.monotonic() - began < bounded.WALL_SECONDS


def test_a_child_that_hangs_is_ended(monkeypatch) -> None:
    monkeypatch.setattr(bounded, "WALL_SECONDS", 0.3)

    def hang(progress: bounded.Progress) -> int:
        progress(HERE)
        time.sleep(60)
        return 1

    began = time.monotonic()
    with pytest.raises(RecipeError) as caught:
        bounded.run(hang, int)
    assert caught.value.origin == HERE
    assert time.monotonic() - began < 5


def test_an_interrupt_ends_the_child_and_is_the_parents_to_handle() -> None:
    program = (
        "import os, signal, sys, time\n"
        "from cfsbuild.recipe import bounded\n"
        "def hang(progress):\n"
        "    sys.stdout.write(f'{os.getpid()}\\n'); sys.stdout.flush()\n"
        "    os.killpg(0, signal.SIGINT); time.sleep(60)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a shell's &\n"
        "try:\n"
        "    bounded.run(hang, int)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=30, start_new_session=True
    )
    pid, word = result.stdout.split()
    assert word == "interrupted"
    assert not Path(f"/proc/{pid}").exists()


def test_a_bug_in_the_child_is_no_recipe_error() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        bounded.run(lambda _: 1 // 0, int)


def test_the_child_cannot_write_files(tmp_path: Path) -> None:
    def attempt(_: bounded.Progress) -> str:
        try:
            (tmp_path / "written").write_text("x")
        except OSError as error:
            return str(error.strerror)
        return "written"

    assert bounded.run(attempt, str) == os.strerror(27)
    assert not (tmp_path / "written").exists() or (tmp_path / "written").read_text() == ""


def test_no_child_is_left_behind(write) -> None:
    load(write(node("{{ n + 1 }}")))
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_large_results_come_back_whole(write) -> None:
    (recipe,) = load(write(node("{% for i in range(100000) %}{{ '0123456789' * 10 }}{% endfor %}")))
    assert len(recipe.nodes["n"].params.content) == 10_000_000


def test_doubling_variables_are_stopped_before_they_fill_the_memory(write) -> None:
    chain = "".join(f'v{i} = "{{{{ v{i - 1} }}}}{{{{ v{i - 1} }}}}"\n' for i in range(1, 60))
    lines = told(write(HEAD + "[vars]\nv0 = '0123456789'\n" + chain))
    # 10 * 2^23 is the first power beyond 64 MiB.
    assert lines == ["recipe.toml:27: a template gives more than 64 MiB of text"]


def test_much_text_from_plain_variables_is_made_in_a_child(write) -> None:
    text = HEAD + f"[vars]\nv = '{'x' * 100_000}'\n[nodes.n]\nkind = 'file'\ntarget = '/a'\n"
    (recipe,) = load(write(text + f"content = '{'{{ v }}' * 100}'\n"))
    assert len(recipe.nodes["n"].params.content) == 10_000_000
    nodes = "".join(
        f"[nodes.n{i}]\nkind = 'file'\ntarget = '/{i}'\ncontent = '{'{{ v }}' * 600}'\n" for i in range(100)
    )
    (line,) = told(write(HEAD + f"[vars]\nv = '{'x' * 100_000}'\n" + nodes))
    assert line.endswith("a template takes too much time or memory")


texts = st.text(st.sampled_from("{}%#n m_1 'a\n"), max_size=30)
pieces = st.sampled_from(
    ["{{ n }}", "{{n}}", "{{ items }}", "{{\tflag }}", "}}", "{", "}", "text", "\n", "{{ ratio }}"]
)
VARIABLES = {"n": 3, "items": ["a", {"b": 1}], "flag": True, "ratio": 0.1, "m": "x", "a": "<&>"}


@settings(max_examples=150, deadline=None)
@given(st.one_of(texts, st.lists(pieces, max_size=6).map("".join)))
def test_filling_in_without_jinja2_gives_what_jinja2_gives(text: str) -> None:
    if not is_simple(text):
        return
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    try:
        expected = environment.from_string(text).render(VARIABLES)
    except jinja2.UndefinedError:
        with pytest.raises(RecipeError):
            Renderer().text(text, VARIABLES, HERE)
    else:
        assert Renderer().text(text, VARIABLES, HERE) == expected


def test_jinja2_is_not_imported_for_plain_variables(write) -> None:
    path = write(HEAD + "version = '{{ v }}'\n[vars]\nv = '{{ w }}-1'\nw = 'x'\n")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from kinds import load;"
        "print(load(Path(sys.argv[2]))[0].version); print('jinja2' in sys.modules, 'networkx' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parent), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["x-1", "False", "False"]


class TestFiles:
    TEXT = HEAD + "[vars]\nn = 3\n[nodes.n]\nkind = 'file'\ntarget = '/a'\ntemplate = 'motd-{{ n }}.j2'\n"

    def test_a_template_file_becomes_the_content(self, write, tmp_path: Path) -> None:
        write("n is {{ n }}\n", "motd-3.j2")
        (recipe,) = load(write(self.TEXT))

        params = recipe.nodes["n"].params
        assert (params.content, params.template) == ("n is 3\n", None)
        assert recipe.files == (tmp_path / "recipe.toml", tmp_path / "motd-3.j2")
        assert recipe.nodes["n"].origin_of("content") == Origin(
            str(tmp_path / "motd-3.j2"), 1, "nodes.n.content"
        )

    def test_a_missing_file_is_told_where_it_is_named(self, write) -> None:
        assert told(write(self.TEXT))[0].startswith("recipe.toml:8: cannot read ")

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("a\n{{ m }}\n", "motd-3.j2:2: there is no variable `m`"),
            ("\n\n{% if %}", "motd-3.j2:3: template: Expected an expression, got 'end of statement block'"),
            ("\n{{ 1 // 0 }}", "motd-3.j2:2: template: "),
        ],
    )
    def test_errors_name_the_line_of_the_template_file(self, write, text: str, line: str) -> None:
        write(text, "motd-3.j2")
        assert told(write(self.TEXT))[0].startswith(line)

    def test_template_files_include_files_below_the_recipe(self, write) -> None:
        write("{% include 'parts/a.j2' %}|{% from 'parts/m.j2' import m %}{{ m(n) }}", "motd-3.j2")
        write("a{{ n }}{% include 'parts/b.j2' %}", "parts/a.j2")
        write("b{{ n }}", "parts/b.j2")
        write("{% macro m(x) %}<{{ x }}>{% endmacro %}", "parts/m.j2")
        (recipe,) = load(write(self.TEXT))

        assert recipe.nodes["n"].params.content == "a3b3|<3>"
        assert {path.name for path in recipe.files} == {"recipe.toml", "motd-3.j2", "a.j2", "b.j2", "m.j2"}

    def test_an_error_in_an_included_file_names_that_file(self, write) -> None:
        write("{% include 'part.j2' %}", "motd-3.j2")
        write("\n\n{{ nn }}", "part.j2")
        assert told(write(self.TEXT)) == ["part.j2:3: there is no variable `nn`"]

    @pytest.mark.parametrize("name", ["../secret.j2", "/etc/passwd", "link.j2", "../recipe/../secret.j2"])
    def test_files_outside_the_recipe_are_refused(self, write, tmp_path: Path, name: str) -> None:
        write("secret", "secret.j2")
        write(f"{{% include '{name}' %}}", "recipe/motd-3.j2")
        (tmp_path / "recipe" / "link.j2").symlink_to("../secret.j2")
        (line,) = told(write(self.TEXT, "recipe/recipe.toml"))
        assert line.endswith("lies outside the recipe's directory")

    def test_one_name_in_two_directories_is_two_files(self, write) -> None:
        part = "{% include 'part.j2' %}"
        for place in ("a", "b"):
            write(place, f"{place}/part.j2")
            write(part, f"{place}/t.j2")
            write(
                f"[nodes.{place}]\nkind = 'file'\ntarget = '/{place}'\ntemplate = 't.j2'\n", f"{place}/r.toml"
            )
        (recipe,) = load(write("include = ['a/r.toml', 'b/r.toml']\n" + HEAD))
        assert {name: spec.params.content for name, spec in recipe.nodes.items()} == {"a": "a", "b": "b"}

    def test_files_that_include_each_other_are_refused(self, write) -> None:
        write("{% include 'b.j2' %}", "motd-3.j2")
        write("{% include 'b.j2' %}", "b.j2")
        assert told(write(self.TEXT))[0].endswith("a template takes too much memory")

    def test_content_and_template_contradict_each_other(self, write) -> None:
        write("", "motd-3.j2")
        assert told(write(self.TEXT + "content = 'x'\n")) == [
            "recipe.toml:9: `nodes.n` has both `content` and `template`"
        ]

    def test_raw_contradicts_a_template_file(self, write) -> None:
        write("", "motd-3.j2")
        assert told(write(self.TEXT + "raw = true\n")) == [
            "recipe.toml:9: `nodes.n.raw` contradicts `template`"
        ]


def test_rendering_one_text_or_file_is_bounded_too(tmp_path: Path) -> None:
    assert render("plain {", {}, origin=HERE) == "plain {"
    assert render("{{ a }}{{ a | upper }}", {"a": "x"}, origin=HERE) == "xX"
    (tmp_path / "t.j2").write_text("{% include 'u.j2' %}{{ a }}")
    (tmp_path / "u.j2").write_text("u{{ a }}")
    assert render_file(str(tmp_path / "t.j2"), {"a": "x"}, origin=HERE) == "uxx"
    with pytest.raises(RecipeError) as caught:
        render("{{ b }}", {}, origin=HERE)
    assert (caught.value.brief, caught.value.origin) == ("there is no variable `b`", HERE)
