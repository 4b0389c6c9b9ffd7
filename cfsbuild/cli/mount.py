"""`cfsbuild mount`: an image becomes a directory tree that the kernel checks."""

from __future__ import annotations

from pathlib import Path

import click

from cfsbuild.cli.images import image_argument
from cfsbuild.cli.mounting import mount_options, plan_mount
from cfsbuild.cli.output import note, write_json
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.deploy.spec import Verity

MOUNTED_VERSION = 1


@click.command("mount")
@common_options("json", "store", "dry_run")
@click.option("--upper", metavar="DIR", default="", help="Keep changes in DIR; needs --work.")
@click.option("--work", metavar="DIR", default="", help="An empty directory on the file system of --upper.")
@click.option(
    "--digest", metavar="HEX", default="", help="The fs-verity digest that the image file must have."
)
@mount_options
@image_argument()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@pass_settings
def command(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    image: str,
    directory: Path,
    *,
    upper: str,
    work: str,
    digest: str,
    objects: tuple[Path, ...],
    verity: Verity,
    idmap: str,
) -> None:
    """Mount IMAGE at the directory DIR. Needs root.

    Says on standard error when the kernel does not check contents by digest. With -n the mount is only
    described, as the JSON document that `docs/formats/mount-spec.md` explains.
    """
    plan = plan_mount(
        settings,
        image,
        objects=objects,
        verity=verity,
        idmap=idmap,
        digest=digest,
        upper=_absolute(upper),
        work=_absolute(work),
    )
    if settings.dry_run:
        write_json(plan.spec)
        return
    from cfsbuild.deploy.mount import mount  # noqa: PLC0415 (help mounts nothing)

    mounted = mount(plan.spec, directory)
    why_not = plan.not_enforced or mounted.why_not
    if settings.json:
        write_json(
            {
                "version": MOUNTED_VERSION,
                "image": plan.image.name,
                "target": mounted.target,
                "enforced": mounted.enforced,
                "why_not": why_not,
            }
        )
    elif not mounted.enforced:
        note(settings, f"note: the kernel does not check contents here: {why_not}")


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""
