"""The JSON schema against an independent validator, on recipes that the loader accepts or refuses."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import tomli
from kinds import HEAD, NODE_KINDS, TARGET_KINDS, load, told

from cfsbuild.nodes.registry import NODE_KINDS as ALL_NODES
from cfsbuild.recipe.schema import json_schema
from cfsbuild.targets.registry import TARGET_KINDS as ALL_TARGETS

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(ROOT.glob("recipes/**/*.toml"))

FILE = HEAD + '[nodes.n]\nkind = "file"\ntarget = "/a"\n'

GOOD = [
    HEAD,
    'include = "a"\n' + HEAD,
    HEAD + '[vars]\na = [1]\n[profiles.p.vars]\na = 2\n[matrix]\nb = ["x", 1]\n',
    FILE + 'level = 3\nowner = 5\nratio = 1\nstyle = "b"\nrules = [{ match = "a", count = 2 }]\n',
    FILE
    + 'level = "{{ n }}"\nraw = "{{ n }}"\nstyle = "{{ n }}"\nratio = "{% if n %}{% endif %}"\nmode = "{{ n }}"\n',
    FILE + 'needs = ["m"]\nreplaces = ["/x"]\n[nodes.m]\nkind = "run"\nscript = "x"\n',
    HEAD + "[targets.image]\ndump = false\n",
    HEAD + '[targets.other]\nkind = "image"\ndump = false\n',
]

BAD = [
    HEAD + "formt = 1\n",
    HEAD + "format = 2\n",
    HEAD + 'epoch = "soon"\n',
    HEAD + "version = 1.0\n",
    HEAD + "extra = 1\n[more]\n",
    HEAD + "[matrix]\na = []\n",
    HEAD + "[profiles.p]\na = 1\n",
    HEAD + '[nodes.n]\ntarget = "/a"\n',
    HEAD + '[nodes.n]\nkind = "fil"\n',
    HEAD + '[nodes.n]\nkind = "file"\n',
    HEAD + '[nodes.n]\nkind = "file"\ntarget = "a"\n',
    FILE + "mod = 1\n",
    FILE + "mode = 755\n",
    FILE + 'mode = "rwx"\n',
    FILE + "level = -1\n",
    FILE + 'level = "3"\n',
    FILE + 'style = "c"\n',
    FILE + "rules = [{}]\n",
    FILE + 'rules = [{ match = "a", mach = 1 }]\n',
    FILE + 'needs = "m"\n',
    HEAD + "[targets.image]\ndmp = false\n",
    HEAD + '[targets.image]\ndump = "no"\n',
    HEAD + '[targets.other]\nkind = "img"\n',
]


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    schema = json_schema(NODE_KINDS, TARGET_KINDS)
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@pytest.mark.parametrize("text", GOOD)
def test_what_the_loader_accepts_the_schema_accepts(validator, write, text: str) -> None:
    write("", "a")
    variables = "" if "[vars]" in text else "[vars]\nn = 1\n"
    if "{{" not in text:
        assert load(write(text))
    assert list(validator.iter_errors(tomli.loads(text + variables))) == []


def test_parts_of_recipes_satisfy_the_schema(validator) -> None:
    for text in ("", "[vars]\na = 1\n", "include = 'a'\n[nodes.n]\nmode = '0600'\n", "[image]\nepoch = 5\n"):
        assert list(validator.iter_errors(tomli.loads(text))) == []
    assert not validator.is_valid(tomli.loads("[nodes.n]\nmode = '0600'\n"))


@pytest.mark.parametrize("text", BAD)
def test_what_the_schema_refuses_the_loader_refuses(validator, write, text: str) -> None:
    assert not validator.is_valid(tomli.loads(text))
    assert told(write(text))


def test_parameters_are_described_by_themselves_or_by_their_types(validator) -> None:
    properties = validator.schema["definitions"]["node.file"]["properties"]
    assert properties["content"]["description"] == "The text."
    assert properties["mode"]["description"] == "Permission bits in octal."
    assert properties["target"]["format"] == "tree-path"


def test_every_parameter_of_every_kind_is_described() -> None:
    definitions = json_schema(ALL_NODES, ALL_TARGETS)["definitions"]
    silent = [
        f"{name}.{key}"
        for name, definition in definitions.items()
        for key, schema in definition.get("properties", {}).items()
        if not _described(schema)
    ]
    assert silent == []


def _described(schema: dict) -> bool:
    if schema.get("description"):
        return True
    inner = [*schema.get("anyOf", []), *([schema["items"]] if isinstance(schema.get("items"), dict) else [])]
    return any(_described(item) for item in inner) or "$ref" in schema


def test_the_schema_of_all_kinds_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(json_schema(ALL_NODES, ALL_TARGETS))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_shipped_recipes_satisfy_the_schema(path: Path) -> None:
    document = tomli.loads(path.read_text())
    if "image" not in document:
        pytest.skip("a part of other recipes, not a recipe of its own")
    validator = jsonschema.Draft7Validator(json_schema(ALL_NODES, ALL_TARGETS))
    assert [error.message for error in validator.iter_errors(document)] == []
