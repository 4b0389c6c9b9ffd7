"""`cfsbuild completion`: a script by which a shell completes our command line."""

from __future__ import annotations

import os

import click

from cfsbuild.cli.output import write_lines
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.cli.verbs import COMPLETE_VARIABLE, PROGRAM

SHELLS = ("bash", "zsh", "fish")

_WHERE = {
    "bash": "cfsbuild completion bash > ~/.local/share/bash-completion/completions/cfsbuild",
    "zsh": "cfsbuild completion zsh > ~/.zfunc/_cfsbuild   (with fpath+=~/.zfunc before compinit)",
    "fish": "cfsbuild completion fish > ~/.config/fish/completions/cfsbuild.fish",
}


@click.command("completion", epilog="\b\n" + "\n".join(_WHERE.values()))
@common_options()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@pass_settings
def command(settings: Settings, shell: str | None) -> None:
    """Print the completion script for SHELL (default: that of $SHELL)."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415 (help completes nothing)

    from cfsbuild.cli.group import root  # noqa: PLC0415 (it imports no verb)

    del settings
    shell = shell or os.path.basename(os.environ.get("SHELL", ""))  # noqa: PTH119 (a name, not a path)
    maker = get_completion_class(shell) if shell in SHELLS else None
    if maker is None:
        raise click.UsageError(f"Which shell? One of {', '.join(SHELLS)}.", ctx=click.get_current_context())
    write_lines([maker(root, {}, PROGRAM, COMPLETE_VARIABLE).source().rstrip("\n")])
