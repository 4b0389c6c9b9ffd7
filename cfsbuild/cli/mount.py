"""`cfsbuild mount`: an image becomes a directory tree that the kernel checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from cfsbuild.cli.bundle_mounting import BundleChoice, bundle_options, mount_by_bundle
from cfsbuild.cli.images import image_argument
from cfsbuild.cli.mounting import Plan, mount_options, plan_mount
from cfsbuild.cli.output import note, write_json
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.deploy.spec import Verity
from cfsbuild.errors import UsageError

MOUNTED_VERSION = 1


@click.command("mount")
@common_options("json", "store", "dry_run")
@click.option("--upper", metavar="DIR", default="", help="Keep changes in DIR; needs --work.")
@click.option("--work", metavar="DIR", default="", help="An empty directory on the file system of --upper.")
@click.option(
    "--digest", metavar="HEX", default="", help="The fs-verity digest that the image file must have."
)
@mount_options
@bundle_options
@image_argument(metavar="[IMAGE]", required=False)
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR", required=False)
@pass_settings
def command(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    /,
    image: str | None,
    directory: Path | None,
    *,
    upper: str,
    work: str,
    digest: str,
    objects: tuple[Path, ...],
    verity: Verity,
    idmap: str,
    bundle: Path | None,
    **about_bundle: Any,  # noqa: ANN401 (the options of `bundle_options`)
) -> None:
    """Mount IMAGE at the directory DIR. Needs root.

    Says on standard error when the kernel does not check contents by digest. With -n the mount is only
    described, as the JSON document that `docs/formats/mount-spec.md` explains.

    With --bundle there is no IMAGE: the signed bundle says what is mounted and how. Nothing is mounted unless
    a trusted key signed it, the image is the one that was signed, and the kernel checks all that is read.
    """
    if bundle is not None:
        about_image = (directory, upper, work, digest, objects, idmap, verity != "try")
        if image is None or any(about_image):
            raise UsageError(
                "with --bundle there is only DIR",
                details="what is mounted and how, the bundle says",
                resolution="cfsbuild mount --bundle FILE DIR",
                reason="usage",
            )
        mount_by_bundle(settings, BundleChoice(file=bundle, **about_bundle), Path(image))
        return
    if image is None or directory is None:
        raise click.UsageError("Missing argument 'IMAGE' or 'DIR'.")
    _refuse_without_bundle(about_bundle)
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
    _mount(settings, plan, directory)


def _mount(settings: Settings, plan: Plan, directory: Path) -> None:
    """Mount and tell; with -n only tell."""
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


def _refuse_without_bundle(about_bundle: dict[str, Any]) -> None:
    """Raise `UsageError` for options that mean something only with `--bundle`."""
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in about_bundle
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise UsageError(
            f"{', '.join(given)}: only with --bundle",
            resolution="`cfsbuild verify IMAGE --key PUB` checks an image's signature",
            reason="usage",
        )


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""
