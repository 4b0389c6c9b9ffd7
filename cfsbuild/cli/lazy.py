"""A click group that imports a verb's module when the verb is used, not before."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping

import click

from cfsbuild.cli.verbs import DEFAULT_VERB, FRONT_ENDS, PACKAGE, VERBS, Verb, run_front_end


class PassThrough(click.Command):
    """A front end as a verb: every argument, `--help` and `--` included, is the front end's own."""

    def __init__(self, name: str, verb: Verb) -> None:
        super().__init__(name, short_help=verb.summary, add_help_option=False)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave `args` alone."""
        ctx.args = list(args)
        return []

    def invoke(self, ctx: click.Context) -> int:
        """Run the front end; return its exit status."""
        return run_front_end(self.name or "", ctx.args)


class LazyGroup(click.Group):
    """The group of all verbs: help and completion need only the table in `verbs`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every verb, in the order in which help lists them."""
        del ctx
        return [*VERBS, *FRONT_ENDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the verb's command, None if there is no such verb."""
        del ctx
        if cmd_name in FRONT_ENDS:
            return PassThrough(cmd_name, FRONT_ENDS[cmd_name])
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"{PACKAGE}.{VERBS[cmd_name].module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; a recipe file in its place means the default verb."""
        name = args[0]
        if name in VERBS or name in FRONT_ENDS or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        if name.endswith(".toml") or (os.sep in name and os.path.isfile(name)):  # noqa: PTH113 (start-up)
            return DEFAULT_VERB, self.get_command(ctx, DEFAULT_VERB), args
        raise _no_such_verb(ctx, name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs under their headings, from the table alone."""
        del ctx
        sections: dict[str, list[tuple[str, str]]] = {}
        table: Mapping[str, Verb] = {**VERBS, **FRONT_ENDS}
        for name, verb in table.items():
            sections.setdefault(verb.section, []).append((name, verb.summary))
        width = max(map(len, table))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in rows])

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Complete verbs from the table; recipes, since `build` is the default verb; options as usual."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 (only when completing)

        items = [
            CompletionItem(name, help=verb.summary)
            for name, verb in {**VERBS, **FRONT_ENDS}.items()
            if name.startswith(incomplete)
        ]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]


def _no_such_verb(ctx: click.Context, name: str) -> click.UsageError:
    if name.startswith("-"):
        return click.NoSuchOption(name, ctx=ctx)
    import difflib  # noqa: PLC0415 (only to complain)

    near = difflib.get_close_matches(name, [*VERBS, *FRONT_ENDS], n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return click.UsageError(f"There is no verb {name!r}.{hint}", ctx)
