"""The language of recipes as a JSON schema, for editors and other programs.

Draft 7, since that is what TOML editors understand. It accepts every recipe that the loader accepts, and
files that are only parts of one; the loader checks more (paths, globs, references between nodes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cfsbuild.recipe import types
from cfsbuild.recipe.document import SECTIONS, ImageTable, NodeTable, ProfileTable, TargetTable

if TYPE_CHECKING:
    from cfsbuild.recipe.load import Schema, TargetSchema

Json = dict[str, Any]

_REFERENCE = "#/definitions/{name}"
_TEMPLATE = "template"
_TEMPLATE_PATTERN = r"\{[{%]"

_PATTERNS = {
    types.FORMAT_TREE_PATH: r"^[/{]",
    types.FORMAT_LOCAL_PATH: r"^[^\n]+$",
    types.FORMAT_MODE: r"^[0-7]{3,5}$|\{[{%]",
    types.FORMAT_GLOB: r"^[^\n]+$",
}
"""What a regular expression can say about the formats, templates admitted."""


def json_schema(node_kinds: Mapping[str, Schema], target_kinds: Mapping[str, TargetSchema]) -> Json:
    """Return the schema of recipes that use these kinds."""
    structs = _structs(node_kinds, target_kinds)
    _, definitions = msgspec.json.schema_components([*structs], ref_template=_REFERENCE)
    names = _names(structs)
    definitions = {name: _templated(definition) for name, definition in definitions.items()}
    definitions[_TEMPLATE] = {
        "type": "string",
        "pattern": _TEMPLATE_PATTERN,
        "description": "A template that gives the value.",
    }
    nodes = _named(definitions, names, "node", node_kinds)
    targets = _named(definitions, names, "target", target_kinds)
    for name in {names[schema.params] for schema in (*node_kinds.values(), *target_kinds.values())}:
        del definitions[name]
    definitions["complete"] = _complete(definitions, nodes)
    for name in (names[ImageTable], *nodes.values()):
        definitions[name].pop("required", None)
    definitions["node"] = _by_kind(definitions, names[NodeTable], nodes, node_kinds)
    definitions["target"] = _by_kind(definitions, names[TargetTable], targets, target_kinds)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "cfsbuild recipe",
        "type": "object",
        "additionalProperties": False,
        "properties": _sections(names, targets),
        # Nodes of an included file may be changed by a few keys; without includes nodes are complete.
        "if": {"not": {"required": ["include"]}},
        "then": {"properties": {"nodes": {"additionalProperties": _reference("complete")}}},
        "definitions": dict(sorted(definitions.items())),
    }


def _structs(
    node_kinds: Mapping[str, Schema], target_kinds: Mapping[str, TargetSchema]
) -> list[type[msgspec.Struct]]:
    params = [schema.params for schema in (*node_kinds.values(), *target_kinds.values())]
    return list(dict.fromkeys([ImageTable, NodeTable, TargetTable, ProfileTable, *params]))


def _names(structs: list[type[msgspec.Struct]]) -> dict[type[msgspec.Struct], str]:
    """Return the definition that stands for each struct."""
    found, _ = msgspec.json.schema_components(structs, ref_template=_REFERENCE)
    return {
        struct: str(schema["$ref"]).rpartition("/")[2] for struct, schema in zip(structs, found, strict=True)
    }


def _named(
    definitions: Json,
    names: Mapping[type[msgspec.Struct], str],
    role: str,
    kinds: Mapping[str, Schema] | Mapping[str, TargetSchema],
) -> dict[str, str]:
    """Let each kind's parameters be called after role and kind; return these names by kind."""
    result = {kind: f"{role}.{kind}" for kind in kinds}
    for kind, name in result.items():
        definitions[name] = definitions[names[kinds[kind].params]]
    return result


def _templated(schema: Json) -> Json:
    """Return a schema that admits templates wherever something else than free text is wanted."""
    result = _without_null(schema)
    if "properties" in result:
        result["properties"] = {key: _templated(item) for key, item in result["properties"].items()}
        result["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(result.get(key), dict):
            result[key] = _templated(result[key])
    for key in ("anyOf", "prefixItems"):
        if key in result:
            result[key] = [_templated(item) for item in result[key]]
    pattern = _PATTERNS.get(result.get("format", ""))
    if pattern:
        result["pattern"] = pattern
    if result.get("type") in {"integer", "number", "boolean"} or "enum" in result:
        outer: Json = {
            key: result.pop(key) for key in ("description", "default", "examples") if key in result
        }
        return {**outer, "anyOf": [result, _reference(_TEMPLATE)]}
    return result


def _without_null(schema: Json) -> Json:
    """Return a copy without the alternative null, which TOML cannot write."""
    result = dict(schema)
    if result.get("default", ...) is None:
        del result["default"]
    choices = [item for item in result.get("anyOf", []) if item != {"type": "null"}]
    if len(choices) == 1:
        del result["anyOf"]
        return {**choices[0], **result}
    if choices:
        result["anyOf"] = choices
    return result


def _complete(definitions: Json, params: Mapping[str, str]) -> Json:
    """Return the schema that demands of a node the keys that its kind cannot do without."""
    cases = [
        {"if": _is_kind(kind), "then": {"required": definitions[name].get("required", [])}}
        for kind, name in params.items()
    ]
    return {"required": ["kind"], "allOf": cases}


def _is_kind(kind: str) -> Json:
    return {"properties": {"kind": {"const": kind}}, "required": ["kind"]}


def _reference(name: str) -> Json:
    return {"$ref": _REFERENCE.format(name=name)}


def _by_kind(definitions: Json, common: str, params: Mapping[str, str], kinds: Mapping[str, Any]) -> Json:
    """Return the schema of a node or target table: its keys follow from its `kind`."""
    shared = definitions[common]["properties"]
    cases = []
    for kind, name in params.items():
        summary = getattr(kinds[kind], "summary", "")
        own = {key: value for key, value in definitions[name].items() if key not in {"title", "description"}}
        then = {**own, "properties": {**shared, **own.get("properties", {})}, "description": summary}
        cases.append({"if": _is_kind(kind), "then": then})
    return {
        "type": "object",
        "description": definitions[common].get("description", ""),
        "properties": {**shared, "kind": {**shared["kind"], "enum": list(params)}},
        "allOf": cases,
    }


def _sections(names: Mapping[type[msgspec.Struct], str], targets: Mapping[str, str]) -> Json:
    target = _reference("target")
    # Without `kind` a target's own name is its kind.
    named = {
        kind: {"allOf": [target, {"if": {"not": {"required": ["kind"]}}, "then": _reference(name)}]}
        for kind, name in targets.items()
    }
    text = {"type": "string", "minLength": 1}
    axis = {"type": "array", "minItems": 1, "items": {"type": ["string", "integer", "boolean"]}}
    shapes: dict[str, Json] = {
        "include": {"anyOf": [text, {"type": "array", "items": text}]},
        "image": _reference(names[ImageTable]),
        "vars": {"type": "object"},
        "profiles": {"type": "object", "additionalProperties": _reference(names[ProfileTable])},
        "matrix": {"type": "object", "additionalProperties": axis},
        "nodes": {"type": "object", "additionalProperties": _reference("node")},
        "targets": {"type": "object", "properties": named, "additionalProperties": target},
    }
    return {key: {**shapes[key], "description": SECTIONS[key]} for key in SECTIONS}
