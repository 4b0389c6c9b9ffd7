"""`cfsbuild shell`: a command inside an image, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import click

from cfsbuild.cli.images import image_argument
from cfsbuild.cli.mounting import mount_options, plan_mount
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.deploy.spec import Verity

DEFAULT_COMMAND = ("/bin/sh",)


@click.command("shell", context_settings={"allow_interspersed_args": False})
@common_options("store")
@click.option("-w", "--writable", is_flag=True, help="Allow changes; they vanish with the command.")
@mount_options
@image_argument()
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND…]")
@pass_settings
def command(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    image: str,
    arguments: tuple[str, ...],
    *,
    writable: bool,
    objects: tuple[Path, ...],
    verity: Verity,
    idmap: str,
) -> int:
    """Run COMMAND (default: /bin/sh) with IMAGE as its root directory. Needs root.

    The image is mounted in a mount namespace of its own, with /proc, /sys and /dev where it has such
    directories. The exit status is the command's: 128 + N if signal N killed it, 127 if there is no such
    command.
    """
    plan = plan_mount(settings, image, objects=objects, verity=verity, idmap=idmap)
    from cfsbuild.deploy.namespace import run_inside  # noqa: PLC0415 (help enters nothing)

    return run_inside(plan.spec, arguments or DEFAULT_COMMAND, writable=writable)
