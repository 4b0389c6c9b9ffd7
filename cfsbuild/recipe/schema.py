"""The language of recipes as a JSON schema, for editors and other programs.

Draft 7, since that is what TOML editors understand. It accepts every recipe that the loader accepts; the
loader checks more (paths, globs, references between nodes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from cfsbuild.recipe import types
from cfsbuild.recipe.describe import attribute_texts
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
    for struct, name in names.items():
        _describe(definitions[name], struct)
    definitions = {name: _templated(definition) for name, definition in definitions.items()}
    definitions[_TEMPLATE] = {
        "type": "string",
        "pattern": _TEMPLATE_PATTERN,
        "description": "A template that gives the value.",
    }
    nodes = {kind: names[schema.params] for kind, schema in node_kinds.items()}
    targets = {kind: names[schema.params] for kind, schema in target_kinds.items()}
    definitions["node"] = _by_kind(definitions, names[NodeTable], nodes, node_kinds)
    definitions["target"] = _target(definitions, names[TargetTable], targets, target_kinds)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "cfsbuild recipe",
        "type": "object",
        "additionalProperties": False,
        "properties": _sections(names, target_kinds),
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


def _describe(definition: Json, struct: type[msgspec.Struct]) -> None:
    for key, text in attribute_texts(struct).items():
        definition["properties"].get(key, {}).setdefault("description", text)


def _templated(schema: Json) -> Json:
    """Return a schema that admits templates wherever something else than free text is wanted."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {key: _templated(item) for key, item in schema["properties"].items()}
        result["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(result.get(key), dict):
            result[key] = _templated(result[key])
    for key in ("anyOf", "prefixItems"):
        if key in schema:
            result[key] = [_templated(item) for item in schema[key]]
    pattern = _PATTERNS.get(schema.get("format", ""))
    if pattern:
        result["pattern"] = pattern
    if schema.get("type") in {"integer", "number", "boolean"} or "enum" in schema:
        outer: Json = {
            key: result.pop(key) for key in ("description", "default", "examples") if key in result
        }
        return {**outer, "anyOf": [result, {"$ref": _REFERENCE.format(name=_TEMPLATE)}]}
    return result


def _by_kind(definitions: Json, common: str, params: Mapping[str, str], kinds: Mapping[str, Any]) -> Json:
    """Return the schema of a node or target table: its keys follow from its `kind`."""
    shared = definitions[common]["properties"]
    cases = []
    for kind, name in params.items():
        summary = getattr(kinds[kind], "summary", "")
        own = {key: value for key, value in definitions[name].items() if key not in {"title", "description"}}
        then = {**own, "properties": {**shared, **own.get("properties", {})}, "description": summary}
        condition = {"properties": {"kind": {"const": kind}}, "required": ["kind"]}
        cases.append({"if": condition, "then": then})
    return {
        "type": "object",
        "description": definitions[common].get("description", ""),
        "required": ["kind"],
        "properties": {**shared, "kind": {**shared["kind"], "enum": list(params)}},
        "allOf": cases,
    }


def _target(definitions: Json, common: str, params: Mapping[str, str], kinds: Mapping[str, Any]) -> Json:
    schema = _by_kind(definitions, common, params, kinds)
    del schema["required"]
    return schema


def _sections(names: Mapping[type[msgspec.Struct], str], target_kinds: Mapping[str, Any]) -> Json:
    def reference(name: str) -> Json:
        return {"$ref": _REFERENCE.format(name=name)}

    target = reference("target")
    # Without `kind` a target's own name is its kind.
    named = {
        kind: {"allOf": [target, {"if": {"not": {"required": ["kind"]}}, "then": _as_kind(names, schema)}]}
        for kind, schema in target_kinds.items()
    }
    text = {"type": "string", "minLength": 1}
    axis = {"type": "array", "minItems": 1, "items": {"type": ["string", "integer", "boolean"]}}
    shapes: dict[str, Json] = {
        "include": {"anyOf": [text, {"type": "array", "items": text}]},
        "image": reference(names[ImageTable]),
        "vars": {"type": "object"},
        "profiles": {"type": "object", "additionalProperties": reference(names[ProfileTable])},
        "matrix": {"type": "object", "additionalProperties": axis},
        "nodes": {"type": "object", "additionalProperties": reference("node")},
        "targets": {"type": "object", "properties": named, "additionalProperties": target},
    }
    return {key: {**shapes[key], "description": SECTIONS[key]} for key in SECTIONS}


def _as_kind(names: Mapping[type[msgspec.Struct], str], schema: TargetSchema) -> Json:
    return {"$ref": _REFERENCE.format(name=names[schema.params])}
