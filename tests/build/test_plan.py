from pathlib import Path

import msgspec
import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.build.job import decode_plan, encode_plan
from cfsbuild.build.plan import plan
from cfsbuild.errors import RecipeError, UsageError
from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.recipe.load import load_recipes
from cfsbuild.recipe.model import NodeSpec, Recipe, TargetSpec
from cfsbuild.targets.registry import TARGET_KINDS


def dir_node(name, needs=(), replaces=()):
    params = NODE_KINDS["dir"].params(target=f"/{name}")
    return NodeSpec(name=name, kind="dir", params=params, needs=tuple(needs), replaces=tuple(replaces))


def recipe_of(*nodes):
    target = TargetSpec(name="image", kind="image", params=TARGET_KINDS["image"].params())
    return Recipe(
        path=Path("r.toml"), name="r", version="", epoch=0, algorithm="sha256", format=1, variables={}, combination={},
        nodes={node.name: node for node in nodes}, targets={"image": target}, files=(Path("r.toml"),), origins={},
    )  # fmt: skip


def planned(*nodes):
    return plan(recipe_of(*nodes), NODE_KINDS, TARGET_KINDS)


def problems(*nodes):
    with pytest.raises(RecipeError) as caught:
        planned(*nodes)
    return [problem.brief for problem in caught.value.problems()]


def load(path):
    (recipe,) = load_recipes(
        path, node_kinds=NODE_KINDS, target_kinds=TARGET_KINDS, overrides={}, profiles=(), environ={}
    )
    return recipe


def plan_file(path):
    return plan(load(path), NODE_KINDS, TARGET_KINDS, load=lambda _, inner: load(inner))


def test_free_nodes_keep_the_order_of_their_declaration():
    assert list(planned(dir_node("z"), dir_node("a"), dir_node("m")).jobs) == ["z", "a", "m", "targets.image"]


def test_a_node_comes_after_all_that_it_needs():
    assert list(planned(dir_node("a", ["z"]), dir_node("z")).jobs) == ["z", "a", "targets.image"]


def test_layers_of_a_node_are_its_transitive_needs_in_merge_order():
    made = planned(dir_node("c", ["b"]), dir_node("b", ["a"]), dir_node("a"), dir_node("x"))
    assert made.jobs["c"].layers == ("a", "b")
    assert made.jobs["targets.image"].layers == ("a", "b", "c", "x")


def test_a_target_directly_needs_only_what_no_other_node_needs():
    assert planned(dir_node("a"), dir_node("b", ["a"])).jobs["targets.image"].needs == ("b",)


def test_every_missing_need_and_every_cycle_is_reported_at_once():
    found = problems(dir_node("a", ["b"]), dir_node("b", ["a"]), dir_node("c", ["cc"]), dir_node("d", ["d"]))
    assert found == [
        "node 'c' needs 'cc', which does not exist",
        "nodes need each other in a circle: a → b → a",
        "nodes need each other in a circle: d → d",
    ]


def test_an_unknown_owner_is_reported_where_it_is_named_with_a_suggestion(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        '[image]\nname = "r"\n[nodes.users]\nkind = "accounts"\nusers = [{ name = "app", uid = 990 }]\n'
        '[nodes.d]\nkind = "dir"\ntarget = "/d"\nowner = "ap"\n'
    )
    with pytest.raises(RecipeError) as caught:
        plan_file(path)
    (problem,) = caught.value.problems()
    assert problem.brief == "user 'ap' is not declared"
    assert "did you mean 'app'" in problem.resolution
    assert problem.origin.line == 9


def test_a_node_is_given_only_the_owners_that_it_names(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        '[image]\nname = "r"\n[nodes.users]\nkind = "accounts"\n'
        'users = [{ name = "app", uid = 990 }, { name = "other", uid = 991 }]\n'
        '[nodes.d]\nkind = "dir"\ntarget = "/d"\nowner = "app"\n'
    )
    assert plan_file(path).jobs["d"].owners.uids == {"root": 0, "app": 990}


def nested(tmp_path):
    (tmp_path / "base.toml").write_text('[image]\nname = "base"\n[nodes.d]\nkind = "dir"\ntarget = "/base"\n')
    outer = tmp_path / "outer.toml"
    outer.write_text(
        '[image]\nname = "outer"\n[nodes.one]\nkind = "image"\nrecipe = "base.toml"\n'
        '[nodes.two]\nkind = "image"\nrecipe = "base.toml"\nprefix = "/again"\n'
    )
    return outer


def test_a_nested_recipe_is_planned_once_however_many_nodes_take_it_in(tmp_path):
    made = plan_file(nested(tmp_path))
    assert list(made.jobs) == ["one/d", "one/", "one", "two", "targets.image"]
    assert made.jobs["one"].nested == made.jobs["two"].nested == "one/"
    assert made.jobs["targets.image"].layers == ("one", "two")


def test_recipes_that_nest_each_other_are_refused(tmp_path):
    outer = nested(tmp_path)
    (tmp_path / "base.toml").write_text(
        '[image]\nname = "base"\n[nodes.d]\nkind = "image"\nrecipe = "outer.toml"\n'
    )
    with pytest.raises(RecipeError, match="recipes nest each other in a circle"):
        plan_file(outer)


def test_problems_of_a_nested_recipe_are_reported_with_its_own_lines(tmp_path):
    outer = nested(tmp_path)
    (tmp_path / "base.toml").write_text(
        '[image]\nname = "base"\n[nodes.d]\nkind = "dirr"\ntarget = "/base"\n'
    )
    with pytest.raises(RecipeError) as caught:
        plan_file(outer)
    assert {Path(problem.origin.file).name for problem in caught.value.problems()} == {"base.toml"}


def test_the_graph_has_an_edge_for_each_need():
    graph = planned(dir_node("a"), dir_node("b", ["a"])).graph()
    assert set(graph.edges) == {("a", "b"), ("b", "targets.image")}
    assert graph.nodes["a"]["job"].kind == "dir"


def test_asking_for_a_node_that_does_not_exist_lists_those_that_do():
    with pytest.raises(UsageError, match="no node 'q'") as caught:
        planned(dir_node("a")).job("q")
    assert "targets.image" in caught.value.resolution


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20))
def test_any_order_of_needs_gives_a_topological_order_that_names_do_not_shape(pairs):
    needs = {number: sorted({a for a, b in pairs if b == number and a < number}) for number in range(8)}
    made = planned(*(dir_node(f"n{number}", [f"n{need}" for need in needs[number]]) for number in range(8)))
    names = list(made.jobs)
    graph = made.graph()
    assert nx.is_directed_acyclic_graph(graph)
    assert all(names.index(a) < names.index(b) for a, b in graph.edges)
    renamed = planned(
        *(dir_node(f"x{9 - number}", [f"x{9 - need}" for need in needs[number]]) for number in range(8))
    )
    assert [name.replace("x", "") for name in renamed.jobs][:-1] == [
        str(9 - int(name[1:])) for name in names[:-1]
    ]


def test_a_plan_survives_being_remembered(tmp_path):
    made = plan_file(nested(tmp_path))
    assert decode_plan(encode_plan(made), NODE_KINDS, TARGET_KINDS) == made


def test_a_remembered_plan_of_another_program_is_refused(tmp_path):
    data = encode_plan(plan_file(nested(tmp_path)))
    with pytest.raises(msgspec.ValidationError):
        decode_plan(data, {"dir": NODE_KINDS["dir"]}, TARGET_KINDS)


def test_a_remembered_plan_is_checked_against_the_sources_of_today(project):
    data = encode_plan(project.plan())
    project.data.unlink()
    with pytest.raises(RecipeError, match=r"data\.bin"):
        decode_plan(data, NODE_KINDS, TARGET_KINDS)
