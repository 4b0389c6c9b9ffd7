import ast
import json
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

import cfsbuild
from cfsbuild.build.keys import LayerUse, canonical_json, key_of, layers_digest, node_components
from cfsbuild.build.reasons import differences
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.nodes.kind import Owners
from cfsbuild.nodes.registry import MODULES, NODE_KINDS
from cfsbuild.targets.registry import MODULES as TARGET_MODULES
from cfsbuild.targets.registry import TARGET_KINDS

PINS = Path(__file__).with_name("kind_versions.json")


def components(**changes):
    given_ = {
        "algorithm": Algorithm.SHA256,
        "owners": Owners(),
        "sources": {"source": "aa"},
        "epoch": 7,
        "input_digest": "",
    } | changes
    kind = given_.pop("kind", NODE_KINDS["file"])
    params = given_.pop("params", NODE_KINDS["file"].params(target="/f", source="a.txt"))
    return node_components(kind, params, **given_)


def test_a_key_is_the_blake3_of_the_canonical_json_of_its_components():
    found = components()
    text = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert key_of(found) == blake3(text.encode()).hexdigest()


def test_the_path_of_a_source_is_no_part_of_the_key():
    elsewhere = NODE_KINDS["file"].params(target="/f", source="../other/place.txt")
    assert key_of(components(params=elsewhere)) == key_of(components())


def test_the_content_of_a_source_is_part_of_the_key():
    assert key_of(components(sources={"source": "bb"})) != key_of(components())


def test_the_epoch_counts_only_for_kinds_that_see_it():
    assert components(epoch=1) == components(epoch=2)
    sees = msgspec.structs.replace(NODE_KINDS["file"], sees_epoch=True)
    assert components(kind=sees, epoch=1) != components(kind=sees, epoch=2)


def test_the_input_counts_only_for_kinds_that_read():
    assert components(input_digest="1") == components(input_digest="2")
    reads = msgspec.structs.replace(NODE_KINDS["file"], reads=True)
    assert components(kind=reads, input_digest="1") != components(kind=reads, input_digest="2")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"algorithm": Algorithm.SHA512}, "algorithm-changed"),
        ({"sources": {"source": "bb"}}, "source-changed"),
        ({"owners": Owners(uids={"root": 0, "app": 9})}, "owner-changed"),
        ({"params": NODE_KINDS["file"].params(target="/g", source="a.txt")}, "parameter-changed"),
        ({"kind": msgspec.structs.replace(NODE_KINDS["file"], version=99)}, "kind-changed"),
    ],
)
def test_each_component_changes_the_key_and_why_says_which(change, reason):
    before, after = components(), components(**change)
    assert key_of(before) != key_of(after)
    assert [found.reason for found in differences(before, after)] == [reason]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=6))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value):
    backwards = dict(reversed(list(value.items())))
    assert canonical_json(value) == canonical_json(backwards)
    assert json.loads(canonical_json(value)) == value


def test_the_digest_of_layers_sees_order_needs_and_rights_but_no_names():
    base = [LayerUse("a"), LayerUse("b", (0,))]
    others = [
        [LayerUse("b"), LayerUse("a", (0,))],
        [LayerUse("a"), LayerUse("b")],
        [LayerUse("a"), LayerUse("b", (0,), ("/x",))],
        [LayerUse("a"), LayerUse("b", (0,), (), reads=True)],
    ]
    assert layers_digest(base) == layers_digest(list(base))
    assert len({layers_digest(uses) for uses in [base, *others]}) == 5


def source_tree(module):
    path = Path(cfsbuild.__file__).parent / Path(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text())


def helpers(tree):
    """Yield the modules of the same room that a module imports: they shape its layers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            ("cfsbuild.nodes", "cfsbuild.targets")
        ):
            package = node.module in {"cfsbuild.nodes", "cfsbuild.targets", "cfsbuild.nodes.tar"}
            names = [f"{node.module}.{alias.name}" for alias in node.names] if package else [node.module]
            yield from (name for name in names if not name.endswith((".kind", ".registry")))


def normalised(tree):
    """Return a module's syntax tree as text: without docstrings, comments, positions."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                body[0] = ast.Pass()
    return ast.dump(tree)


def source_digest(module):
    """Return one digest for a kind's module and all that it imports from its room."""
    seen = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in seen:
            tree = source_tree(name)
            todo.extend(helpers(tree))
            seen[name] = normalised(tree)
    return blake3(json.dumps(seen, sort_keys=True).encode()).hexdigest()


def pins():
    found = {}
    for group, modules, kinds in (("node", MODULES, NODE_KINDS), ("target", TARGET_MODULES, TARGET_KINDS)):
        for name, module in modules.items():
            found[f"{group} {name}"] = {"version": kinds[name].version, "source": source_digest(module)}
    return found


def test_a_kind_whose_source_changed_has_a_new_version_or_its_pin_was_renewed_knowingly():
    """When this fails: could the same key now give another output? Then raise the kind's version.

    In either case renew the pin: `python tests/build/test_keys.py`.
    """
    assert json.loads(PINS.read_text()) == pins()


if __name__ == "__main__":
    PINS.write_text(json.dumps(pins(), indent=1) + "\n")
