# ruff: noqa: INP001 (a script beside the pages that it writes)
"""Write the files that follow from the code: the JSON schema of recipes, and `recipe-reference.md` from it.

`python docs/generate.py` writes them; with `--check` it writes nothing and exits 1 if one is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.recipe import types
from cfsbuild.recipe.schema import json_schema
from cfsbuild.targets.registry import TARGET_KINDS

HERE = Path(__file__).parent

Json = dict[str, Any]

_TYPES = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "object": "table",
    "array": "array",
}

_HEAD = """\
# Recipe reference

Every table and key of a recipe. How they work together is told in
[the recipe language](recipe-language.md). This page is generated from the schema that `cfsbuild schema`
prints: `python docs/generate.py` writes it anew.

Where a key has no default and is not marked as required, leaving it out means that it does not apply. A
template may stand wherever a number, a boolean or one of several words is wanted.
"""


_FORMATS = {
    "tree-path": types.TreePath,
    "local-path": types.LocalPath,
    "mode": types.Mode,
    "owner": types.Owner,
    "glob": types.Glob,
}


def files() -> dict[Path, str]:
    """Return what the generated files should hold."""
    schema = json_schema(NODE_KINDS, TARGET_KINDS)
    return {
        HERE / "recipe.schema.json": msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
        + "\n",
        HERE / "recipe-reference.md": "\n".join(_pieces(schema)) + "\n",
    }


def _pieces(schema: Json) -> Iterator[str]:
    definitions = schema["definitions"]
    yield _HEAD
    yield "## Top level\n"
    yield "| key | what it is |\n|---|---|"
    for key, section in schema["properties"].items():
        yield f"| `{key}` | {_cell(section['description'])} |"
    yield "\n## Types\n"
    yield "| type | what it is |\n|---|---|"
    for name, kind in _FORMATS.items():
        yield f"| {name} | {_cell(_described(msgspec.json.schema(kind), {}))} |"
    yield "\n## `[image]`\n"
    yield from _table(definitions["ImageTable"], ["name"], definitions)
    yield "\n## `[nodes.NAME]`\n"
    yield f"{definitions['NodeTable']['description']}\n"
    yield from _table(definitions["NodeTable"], ["kind"], definitions)
    required = {
        case["if"]["properties"]["kind"]["const"]: case["then"]["required"]
        for case in definitions["complete"]["allOf"]
    }
    for kind, node_kind in NODE_KINDS.items():
        yield f'\n### `kind = "{kind}"`\n'
        yield from _kind(definitions, f"node.{kind}", node_kind.summary, required[kind])
    yield "\n## `[targets.NAME]`\n"
    yield f"{definitions['TargetTable']['description']}\n"
    yield from _table(definitions["TargetTable"], [], definitions)
    for kind, target_kind in TARGET_KINDS.items():
        yield f'\n### `kind = "{kind}"` (target)\n'
        needed = [field.encode_name for field in msgspec.structs.fields(target_kind.params) if field.required]
        yield from _kind(definitions, f"target.{kind}", target_kind.summary, needed)


def _kind(definitions: Json, name: str, summary: str, required: list[str]) -> Iterator[str]:
    definition = definitions[name]
    yield f"{summary}\n"
    description = definition.get("description", "")
    if description and description != summary:
        yield f"{description}\n"
    yield from _table(definition, required, definitions)
    for nested in _nested(definition, definitions, {name}):
        yield f"\n#### {nested}\n"
        yield f"{definitions[nested].get('description', '')}\n"
        yield from _table(definitions[nested], definitions[nested].get("required", []), definitions)


def _nested(definition: Json, definitions: Json, seen: set[str]) -> list[str]:
    """Return the tables that a definition refers to, in the order in which it does."""
    found: list[str] = []
    for name in _references(definition):
        if name != "template" and name not in seen:
            seen.add(name)
            found += [name, *_nested(definitions[name], definitions, seen)]
    return found


def _references(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _table(definition: Json, required: list[str], definitions: Json) -> Iterator[str]:
    if not definition.get("properties"):
        yield "No keys of its own."
        return
    yield "| key | type | default | what it is |\n|---|---|---|---|"
    for key, schema in definition["properties"].items():
        default = "required" if key in required else _default(schema)
        text = _described(schema, definitions)
        yield f"| `{key}` | {_type(schema)} | {default} | {_cell(text)} |"


def _default(schema: Json) -> str:
    if "default" not in schema or schema["default"] in ([], {}, ""):
        return ""
    return f"`{json.dumps(schema['default'], ensure_ascii=False)}`"


def _described(schema: Json, definitions: Json) -> str:
    text = schema.get("description", "") or _inner_description(schema, definitions)
    examples = [example for example in schema.get("examples", []) if not isinstance(example, dict)]
    general = definitions and _FORMATS.get(schema.get("format", ""))
    if examples and not (general and msgspec.json.schema(general)["examples"] == examples):
        text += f" Example: `{json.dumps(examples[0], ensure_ascii=False)}`."
    return text


def _inner_description(schema: Json, definitions: Json) -> str:
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        return str(target.get("description", ""))
    for inner in (*schema.get("anyOf", []), schema.get("items", {})):
        if isinstance(inner, dict) and _described(inner, definitions):
            return str(inner.get("description", "")) or _inner_description(inner, definitions)
    return ""


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if schema.get("format") in _FORMATS:
        return str(schema["format"])
    if "anyOf" in schema:
        kinds = [_type(item) for item in schema["anyOf"] if item.get("$ref") != "#/definitions/template"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kind = _TYPES.get(schema.get("type", ""), "any value")
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"array of {_type(schema['items'])}"
    return kind


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or compare them; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the files that follow from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is stale")
    options = parser.parse_args(arguments)
    stale = [path for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if options.check:
            sys.stderr.write(f"docs/{path.name} is not up to date: run `python docs/generate.py`\n")
        else:
            path.write_text(files()[path], encoding="utf-8")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
