"""The mount that a bundle declares, before anything is known of the machine that carries it out."""

from __future__ import annotations

from pathlib import PurePath

from cfsbuild.deploy.spec import MountSpec
from cfsbuild.trust.bundle import Bundle
from cfsbuild.trust.statement import digest_hex


def declared_spec(bundle: Bundle, base: PurePath) -> MountSpec:
    """Return the mount with paths below `base`, the file system that has objects and state.

    The image is an object of the first directory.
    """
    digest = digest_hex(bundle.image)
    objects = tuple(str(base / directory) for directory in bundle.objects)
    upper = work = ""
    if bundle.upper is not None:
        upper, work = (str(base / path) for path in (bundle.upper.directory, bundle.upper.work))
    return MountSpec(
        image=f"{objects[0]}/{digest[:2]}/{digest[2:]}",
        objects=objects,
        digest=digest if bundle.verity == "require" else "",
        verity=bundle.verity,
        read_only=bundle.ro,
        upper=upper,
        work=work,
    )
