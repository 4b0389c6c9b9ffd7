"""`cfsbuild schema`."""

from __future__ import annotations

import json

import jsonschema

from cfsbuild.cli.main import main
from cfsbuild.nodes.registry import NODE_KINDS


def test_schema_writes_a_schema_that_knows_every_kind(capfd) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capfd.readouterr().out)
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["definitions"]["node"]["properties"]["kind"]["enum"] == list(NODE_KINDS)


def test_the_schema_is_the_same_every_time(capfd) -> None:
    main(["schema"])
    first = capfd.readouterr().out
    main(["schema"])
    assert capfd.readouterr().out == first
