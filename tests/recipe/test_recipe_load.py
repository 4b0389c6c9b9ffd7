"""Recipes from text to `Recipe`: includes, variables, profiles, matrix, overrides, epoch, names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kinds import HEAD, load, problems, told

NODE = '[nodes.{}]\nkind = "file"\ntarget = "/{}"\ncontent = "{}"\n'


def node(name: str, content: str = "x") -> str:
    return NODE.format(name, name, content)


def test_a_minimal_recipe_has_defaults_and_the_image_target(write) -> None:
    (recipe,) = load(write(HEAD))

    assert (recipe.name, recipe.version, recipe.image_name) == ("demo", "", "demo")
    assert (recipe.epoch, recipe.algorithm, recipe.format) == (0, "sha256", 1)
    assert list(recipe.targets) == ["image"]
    assert recipe.targets["image"].kind == "image"
    assert recipe.targets["image"].params.dump is True


def test_a_recipe_without_any_tables_lacks_an_image(write) -> None:
    assert told(write("")) == ["recipe.toml:1: the recipe has no [image] table"]


def test_a_missing_recipe_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path / "none.toml")
    assert problem.brief.startswith("cannot read ")
    assert problem.details == "No such file or directory"


def test_a_directory_or_fifo_in_the_place_of_a_recipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert problems(tmp_path)[0].brief.startswith("cannot read ")
    assert told(tmp_path / "fifo") == ["fifo:1: the recipe has no [image] table"]


class TestIncludes:
    def test_the_later_file_wins_and_tables_merge_by_key(self, write) -> None:
        write('[vars]\na = "base"\nb = "base"\n' + node("n", "{{ a }} {{ b }}"), "base.toml")
        write('[vars]\nb = "second"\n', "second.toml")
        (recipe,) = load(write('include = ["base.toml", "second.toml"]\n' + HEAD + '[vars]\nc = "own"\n'))

        assert recipe.variables == {"a": "base", "b": "second", "c": "own"}
        assert recipe.nodes["n"].params.content == "base second"

    def test_arrays_and_scalars_replace(self, write) -> None:
        write(
            '[vars]\nlist = [1, 2]\n[nodes.n]\nkind="file"\ntarget="/a"\nxattrs = { "user.a" = "1" }\n',
            "base.toml",
        )
        recipe_text = (
            'include = "base.toml"\n'
            + HEAD
            + '[vars]\nlist = [3]\n[nodes.n]\ntarget = "/b"\nxattrs."user.b" = "2"\n'
        )
        (recipe,) = load(write(recipe_text))

        assert recipe.variables["list"] == [3]
        assert recipe.nodes["n"].params.target == "/b"
        assert recipe.nodes["n"].params.xattrs == {"user.a": "1", "user.b": "2"}

    def test_includes_are_relative_to_the_file_that_names_them(self, write) -> None:
        write('include = ["deep/leaf.toml"]\n', "common/base.toml")
        write(node("leaf"), "common/deep/leaf.toml")
        (recipe,) = load(write('include = ["common/base.toml"]\n' + HEAD))

        names = [path.name for path in recipe.files]
        assert names == ["recipe.toml", "base.toml", "leaf.toml"]
        assert recipe.nodes["leaf"].origin.file.endswith("common/deep/leaf.toml")

    def test_local_paths_are_relative_to_the_file_that_declares_them(self, write, tmp_path: Path) -> None:
        write('[nodes.n]\nkind = "file"\ntarget = "/a"\nsource = "data"\n', "common/base.toml")
        (recipe,) = load(write('include = ["common/base.toml"]\n' + HEAD))

        spec = recipe.nodes["n"]
        assert spec.resolve("source", spec.params.source) == tmp_path / "common" / "data"

    def test_a_circle_is_told_with_the_whole_chain(self, write) -> None:
        write('\ninclude = ["b.toml"]\n', "a.toml")
        write('include = ["a.toml"]\n', "b.toml")
        (problem,) = problems(write('include = ["a.toml"]\n' + HEAD))

        assert problem.brief == "files include each other in a circle"
        assert [line.rpartition("/")[2] for line in problem.details.splitlines()] == [
            "recipe.toml:1 includes a.toml",
            "a.toml:2 includes b.toml",
            "b.toml:1 includes a.toml",
        ]

    def test_a_file_that_includes_itself_is_a_circle_also_through_a_link(self, write, tmp_path: Path) -> None:
        recipe = write('include = ["link.toml"]\n' + HEAD)
        (tmp_path / "link.toml").symlink_to("recipe.toml")
        assert problems(recipe)[0].brief == "files include each other in a circle"

    def test_a_missing_include_is_told_where_it_is_named(self, write) -> None:
        assert told(write('\ninclude = ["none.toml"]\n' + HEAD))[0].startswith("recipe.toml:2: cannot read ")

    def test_a_node_must_not_change_its_kind(self, write) -> None:
        write(node("n"), "base.toml")
        text = 'include = ["base.toml"]\n' + HEAD + '[nodes.n]\nkind = "run"\nscript = "true"\n'
        assert "recipe.toml:5: `nodes.n` changes its kind from `file` to `run`" in told(write(text))

    def test_including_one_file_twice_is_no_circle(self, write) -> None:
        write(node("n"), "base.toml")
        write('include = ["base.toml"]\n', "a.toml")
        write('include = ["base.toml"]\n', "b.toml")
        (recipe,) = load(write('include = ["a.toml", "b.toml"]\n' + HEAD))
        assert list(recipe.nodes) == ["n"]

    def test_exponential_includes_are_stopped(self, write) -> None:
        for level in range(20):
            write(f'include = ["{level + 1}.toml", "{level + 1}.toml"]\n', f"{level}.toml")
        write("", "20.toml")
        assert "more than 256 files are included" in told(write('include = ["0.toml"]\n' + HEAD))[0]

    def test_includes_know_no_variables(self, write) -> None:
        assert told(write('include = ["{{ a }}.toml"]\n' + HEAD)) == [
            "recipe.toml:1: `include` cannot use variables"
        ]


class TestVariables:
    def test_layers_win_over_each_other_in_order(self, write) -> None:
        path = write(
            HEAD
            + '[vars]\na = "vars"\nb = "vars"\nc = "vars"\nd = "vars"\n'
            + '[profiles.p.vars]\nb = "p"\nc = "p"\nd = "p"\n[profiles.q.vars]\nc = "q"\n'
            + '[matrix]\nd = ["matrix"]\n'
        )
        assert load(path)[0].variables == {"a": "vars", "b": "vars", "c": "vars", "d": "matrix"}
        assert load(path, "p", "q")[0].variables == {"a": "vars", "b": "p", "c": "q", "d": "matrix"}
        assert load(path, "q", "p")[0].variables["c"] == "p"
        assert load(path, "p", c="line")[0].variables["c"] == "line"

    def test_variables_refer_to_each_other_across_layers(self, write) -> None:
        path = write(
            HEAD
            + '[vars]\nurl = "{{ host }}:{{ port }}"\nhost = "{{ name }}.example"\nname = "a"\nport = 80\n'
            + '[profiles.p.vars]\nname = "b"\n'
        )
        assert load(path)[0].variables["url"] == "a.example:80"
        assert load(path, "p")[0].variables["url"] == "b.example:80"

    def test_a_circle_is_told_with_lines_and_once(self, write) -> None:
        path = write(HEAD + '[vars]\na = "{{ b }}"\nb = "{{ c }}"\nc = ["{{ a }}"]\nd = "{{ a }}"\n')
        (problem,) = problems(path)
        assert problem.brief == "variables refer to each other in a circle: a → b → c → a"
        assert [line.rpartition("/")[2] for line in problem.details.splitlines()] == [
            "recipe.toml:4: `a` refers to `b`",
            "recipe.toml:5: `b` refers to `c`",
            "recipe.toml:6: `c` refers to `a`",
        ]

    def test_a_long_chain_is_refused_and_no_stack_overflows(self, write) -> None:
        chain = "".join(f'v{i} = "{{{{ v{i + 1} }}}}"\n' for i in range(3000))
        lines = told(write(HEAD + "[vars]\n" + chain + 'v3000 = "end"\n'))
        assert lines[0].endswith("variables refer to each other more than 100 deep")

    def test_an_unknown_variable_is_told_with_a_suggestion(self, write) -> None:
        path = write(HEAD + '[vars]\nhostname = "a"\n' + node("n", "{{ hostnam }}"))
        (problem,) = problems(path)
        assert problem.brief == "there is no variable `hostnam`"
        assert problem.resolution == "did you mean `hostname`?"
        assert problem.origin.line == 8

    @pytest.mark.parametrize("name", ["not", "loop", "9a", "a-b", "ä", "class", "true"])
    def test_names_that_templates_cannot_use_are_refused(self, write, name: str) -> None:
        assert told(write(HEAD + f'[vars]\n"{name}" = 1\n')) == [
            f"recipe.toml:4: `{name}` cannot be the name of a variable"
        ]

    def test_an_unknown_profile_is_told_with_a_suggestion(self, write) -> None:
        (problem,) = problems(write(HEAD + "[profiles.debug.vars]\na = 1\n"), "debgu")
        assert (problem.brief, problem.resolution) == (
            "the recipe has no profile `debgu`",
            "did you mean `debug`?",
        )
        assert str(problem.origin) == "command line"

    def test_a_profile_has_nothing_but_variables(self, write) -> None:
        assert told(write(HEAD + "[profiles.debug]\nnodes = 1\n")) == [
            "recipe.toml:4: unknown key `nodes` in `profiles.debug`"
        ]


class TestOverrides:
    TEXT = HEAD + '[vars]\ntext = "a"\nnumber = 1\nratio = 0.5\nflag = false\nlist = [1]\ntable = { a = 1 }\n'

    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("text", "2026.10", "2026.10"),
            ("text", "true", "true"),
            ("text", "", ""),
            ("text", "a=b", "a=b"),
            ("text", "{{ number }}", "{{ number }}"),
            ("number", "42", 42),
            ("number", "0x10", 16),
            ("ratio", "2", 2),
            ("flag", "true", True),
            ("list", '["x", 2]', ["x", 2]),
            ("table", "{ b = 2 }", {"b": 2}),
        ],
    )
    def test_a_value_takes_the_type_of_the_variable(self, write, name: str, text: str, value: object) -> None:
        assert load(write(self.TEXT), **{name: text})[0].variables[name] == value

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("number", "x"),
            ("number", "1.5"),
            ("number", "true"),
            ("flag", "1"),
            ("list", "1"),
            ("number", "1\nx = 2"),
            ("number", ""),
        ],
    )
    def test_a_value_of_another_type_is_refused(self, write, name: str, text: str) -> None:
        (problem,) = problems(write(self.TEXT), **{name: text})
        assert problem.brief.startswith(f"-o {name}: `{text}` is not ")
        assert problem.origin.file == "command line"

    def test_an_unknown_variable_is_an_error_with_a_suggestion(self, write) -> None:
        (problem,) = problems(write(self.TEXT), numbr="1")
        assert problem.brief == "-o numbr: the recipe has no variable `numbr`"
        assert problem.resolution == "did you mean `number`?"


class TestMatrix:
    TEXT = (
        HEAD
        + 'version = "1"\n[matrix]\narch = ["amd64", "arm64"]\nsize = [1, 2]\n'
        + node("n", "{{ arch }}/{{ size }}")
    )

    def test_there_is_one_image_for_each_combination_in_order(self, write) -> None:
        recipes = load(write(self.TEXT))
        assert [recipe.image_name for recipe in recipes] == [
            "demo-1-amd64-1",
            "demo-1-amd64-2",
            "demo-1-arm64-1",
            "demo-1-arm64-2",
        ]
        assert [recipe.nodes["n"].params.content for recipe in recipes] == [
            "amd64/1",
            "amd64/2",
            "arm64/1",
            "arm64/2",
        ]
        assert recipes[2].combination == {"arch": "arm64", "size": "1"}
        assert recipes[2].variables == {"arch": "arm64", "size": 1}

    def test_an_override_of_an_axis_chooses_one_of_its_values(self, write) -> None:
        recipes = load(write(self.TEXT), arch="arm64", size="2")
        assert [recipe.image_name for recipe in recipes] == ["demo-1-arm64-2"]

    def test_an_override_that_is_no_value_of_the_axis_is_refused(self, write) -> None:
        (problem,) = problems(write(self.TEXT), arch="arm46")
        assert problem.brief == "`arm46` is not a value of the matrix axis `arch`"
        assert problem.resolution == "did you mean `arm64`?"

    @pytest.mark.parametrize(
        "matrix", ['a = ["x", "x"]', 'a = ["x-y", "x"]\nb = ["z", "y-z"]', 'a = ["1", 1]']
    )
    def test_images_that_would_share_a_name_are_refused(self, write, matrix: str) -> None:
        assert "would both be called `demo-" in told(write(HEAD + "[matrix]\n" + matrix + "\n"))[0]

    @pytest.mark.parametrize("value", ["a/b", "..", "", "a b", "-x", "ü"])
    def test_values_must_be_able_to_stand_in_file_names(self, write, value: str) -> None:
        assert told(write(HEAD + f'[matrix]\na = ["{value}"]\n')) == [
            "recipe.toml:4: `matrix.a.0` cannot be part of a file name"
        ]

    @pytest.mark.parametrize("axis", ["[]", '"x"', "{}"])
    def test_an_axis_is_an_array_with_something_in_it(self, write, axis: str) -> None:
        assert told(write(HEAD + f"[matrix]\na = {axis}\n")) == [
            "recipe.toml:4: `matrix.a` must be an array of at least one value"
        ]

    def test_a_huge_matrix_is_refused_at_once(self, write) -> None:
        axes = "".join(f"a{i} = {list(range(100))}\n" for i in range(50))
        assert "combinations, at most 1024 are allowed" in told(write(HEAD + "[matrix]\n" + axes))[0]

    def test_a_problem_of_every_combination_is_told_once(self, write) -> None:
        assert told(write(self.TEXT + "\nmode = 3\n")) == [
            "recipe.toml:12: `nodes.n.mode` must be a string, not an integer"
        ]


class TestEpoch:
    def test_the_recipe_wins_over_the_environment_and_that_over_zero(self, write) -> None:
        assert load(write(HEAD + "epoch = 5\n"), environ={"SOURCE_DATE_EPOCH": "7"})[0].epoch == 5
        assert load(write(HEAD), environ={"SOURCE_DATE_EPOCH": "7"})[0].epoch == 7
        assert load(write(HEAD), environ={"SOURCE_DATE_EPOCH": ""})[0].epoch == 0

    @pytest.mark.parametrize("text", ["-1", "now", "1.5", "\u0663", "9" * 30, " 1"])
    def test_a_bad_environment_is_told(self, write, text: str) -> None:
        assert told(write(HEAD), environ={"SOURCE_DATE_EPOCH": text}) == [
            "SOURCE_DATE_EPOCH in the environment is not a number of seconds"
        ]

    @pytest.mark.parametrize("value", ["-1", "253402300800"])
    def test_an_epoch_out_of_range_is_refused(self, write, value: str) -> None:
        assert "`image.epoch` must be at " in told(write(HEAD + f"epoch = {value}\n"))[0]


class TestNames:
    @pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a\\nb", "x" * 65, "-o"])
    def test_image_names_must_be_safe_file_names(self, write, name: str) -> None:
        assert told(write(f'[image]\nname = "{name}"\n')) == [
            "recipe.toml:2: `image.name` cannot be part of a file name"
        ]

    def test_the_version_may_come_from_a_variable_and_is_checked_then(self, write) -> None:
        text = HEAD + 'version = "{{ v }}"\n[vars]\nv = "1.0"\n'
        assert load(write(text))[0].image_name == "demo-1.0"
        assert told(write(text), v="1/0") == ["recipe.toml:3: `image.version` cannot be part of a file name"]

    def test_a_version_that_is_a_number_is_told_to_be_quoted(self, write) -> None:
        (problem,) = problems(write(HEAD + "version = 2026.10\n"))
        assert problem.brief == "`image.version` must be a string, not a number"
        assert problem.resolution == "put it in quotes"

    def test_node_names_must_be_safe(self, write) -> None:
        assert told(write(HEAD + node("n").replace("nodes.n", 'nodes."a b"'))) == [
            'recipe.toml:3: the name of `nodes."a b"` cannot be part of a file name'
        ]


def test_origins_tell_where_each_value_came_from(write) -> None:
    write(node("n", "{{ a }}"), "base.toml")
    path = write(
        'include = "base.toml"\n'
        + HEAD
        + '[vars]\na = "1"\nb = "2"\n[profiles.p.vars]\nb = "3"\n[nodes.n]\nmode = "0600"\n'
    )
    (recipe,) = load(path, "p", a="x")

    origins = recipe.origins
    assert (origins["vars.a"].file, origins["vars.a"].key) == ("command line", "-o a")
    assert (origins["vars.b"].line, origins["vars.b"].key) == (8, "profiles.p.vars.b")
    assert (Path(origins["nodes.n.content"].file).name, origins["nodes.n.content"].line) == ("base.toml", 4)
    spec = recipe.nodes["n"]
    assert spec.origin.line == 9
    assert spec.origin_of("mode").line == 10
    assert Path(spec.origin_of("target").file).name == "base.toml"


def test_bad_toml_is_told_with_its_line(write) -> None:
    (line,) = told(write(HEAD + "a = [1\nb = 2\n"))
    assert line.startswith("recipe.toml:4: not valid TOML: ")


def test_a_key_that_is_written_twice_is_told_with_its_line(write) -> None:
    assert told(write(HEAD + "[vars]\na = 1\na = 2\n"))[0].startswith("recipe.toml:5: not valid TOML: ")
