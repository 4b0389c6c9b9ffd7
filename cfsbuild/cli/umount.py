"""`cfsbuild umount`."""

from __future__ import annotations

from pathlib import Path

import click

from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.errors import UsageError

MOUNTINFO = Path("/proc/self/mountinfo")
_ABOVE = ("etc/machine-id", "etc", "var")
"""What `mount --bundle` mounts in an image, in the order in which it has to go."""

_ESCAPES = {" ": "\\040", "\t": "\\011", "\n": "\\012", "\\": "\\134"}


@click.command("umount")
@common_options(changes=True)
@click.option("-l", "--lazy", is_flag=True, help="Detach now, clean up when nothing uses it any more.")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@pass_settings
def command(settings: Settings, directory: Path, *, lazy: bool) -> None:
    """Unmount the image that is mounted at DIR, with its /etc and /var if a bundle made them writable.

    Needs root. Refuses what is no composefs mount.
    """
    from cfsbuild.deploy.mount import unmount  # noqa: PLC0415 (help unmounts nothing)

    del settings
    place = directory.resolve()
    mounts = MOUNTINFO.read_text(errors="surrogateescape")
    source = mounted_source(place, mounts)
    if source != "composefs":
        what = f"it is a mount of {source}" if source else "nothing is mounted there"
        raise UsageError(f"no image is mounted at {directory}", details=what, reason="not-mounted")
    for name in _ABOVE:
        if mounted_source(place / name, mounts):
            unmount(place / name, lazy=lazy)
    unmount(place, lazy=lazy)


def mounted_source(place: Path, mountinfo: str) -> str:
    """Return the source of the last mount at `place` by the text of proc(5)'s mountinfo; empty if none."""
    wanted = "".join(_ESCAPES.get(char, char) for char in str(place))
    source = ""
    for line in mountinfo.split("\n"):
        before, dash, after = line.partition(" - ")
        fields = before.split(" ")
        if dash and len(fields) > 4 and fields[4] == wanted:
            source = after.split(" ")[1] if after.count(" ") else ""
    return source
