"""From a mount spec to the system calls that carry it out, as data.

Sources: the order of calls of composefs's own mount helper; the kernel's overlayfs documentation.
"""

from __future__ import annotations

import msgspec

from cfsbuild.deploy.spec import MountSpec


class Setting(msgspec.Struct, frozen=True):
    """One fsconfig() call: a flag when `value` is None, else a string. An `optional` one may fail."""

    key: str
    value: str | None = None
    optional: bool = False


class FilesystemMount(msgspec.Struct, frozen=True):
    """One file system to create with fsopen(), fsconfig() and fsmount().

    A `restricted` one has no device nodes, and nothing in it gives other rights when it is run.
    """

    filesystem: str
    settings: tuple[Setting, ...]
    read_only: bool
    restricted: bool = False


def erofs_mount(source: str, *, acl: bool) -> FilesystemMount:
    """Return the mount of the metadata image at `source`; without ACLs in it, lookups skip them."""
    settings = [Setting("source", source), Setting("ro")]
    if not acl:
        settings.append(Setting("noacl"))
    return FilesystemMount("erofs", tuple(settings), read_only=True)


def overlay_mount(spec: MountSpec, metadata: str) -> FilesystemMount:
    """Return the overlay that joins the mounted `metadata` image with the object directories (kernel 6.7)."""
    settings = [Setting("source", "composefs"), Setting("metacopy", "on"), Setting("redirect_dir", "on")]
    if spec.verity != "off":
        settings.append(Setting("verity", "require", optional=spec.verity == "try"))
    settings.append(Setting("lowerdir+", metadata))
    settings.extend(Setting("datadir+", directory) for directory in spec.objects)
    if spec.upper:
        settings.append(Setting("upperdir", escape(spec.upper, "\\")))
        settings.append(Setting("workdir", escape(spec.work, "\\")))
    return FilesystemMount("overlay", tuple(settings), read_only=spec.read_only)


def overlay_options(spec: MountSpec, metadata: str, *, data_only: bool, verity: bool) -> str:
    """Return the option string of mount(2) for kernels before 6.7.

    `data_only` uses the `::` of kernel 6.5; without it the object directories are ordinary lower layers,
    hidden by the whiteouts in the image's root.
    """
    separator = "::" if data_only else ":"
    lower = separator.join(escape(path, "\\:,") for path in (metadata, *spec.objects))
    options = ["metacopy=on", "redirect_dir=on", f"lowerdir={lower}"]
    if spec.upper:
        options.append(f"upperdir={escape(spec.upper, chr(92) + ',')}")
        options.append(f"workdir={escape(spec.work, chr(92) + ',')}")
    if verity:
        options.append("verity=require")
    return ",".join(options)


def escape(path: str, special: str) -> str:
    """Put a backslash before each character of `special` in `path`."""
    return "".join(f"\\{char}" if char in special else char for char in path)
