"""`cfsbuild schema`: the JSON schema of recipes."""

from __future__ import annotations

import click

from cfsbuild.cli.settings import Settings, common_options, pass_settings


@click.command("schema")
@common_options("json")
@pass_settings
def command(settings: Settings) -> None:
    """Print the JSON schema of recipes.

    Editors complete and check recipes with it: write the schema to a file, and begin a recipe with
    `#:schema FILE`.
    """
    del settings
    import msgspec  # noqa: PLC0415 (not for help)

    from cfsbuild.cli.output import write_bytes  # noqa: PLC0415
    from cfsbuild.nodes.registry import NODE_KINDS  # noqa: PLC0415
    from cfsbuild.recipe.schema import json_schema  # noqa: PLC0415
    from cfsbuild.targets.registry import TARGET_KINDS  # noqa: PLC0415

    text = msgspec.json.encode(json_schema(NODE_KINDS, TARGET_KINDS))
    write_bytes([msgspec.json.format(text, indent=2), b"\n"])
