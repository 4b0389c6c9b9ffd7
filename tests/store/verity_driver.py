"""A small program that is run where the kernel has fs-verity. usage: verity_driver.py DIRECTORY."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path

import store_driver
from store_driver import object_path

from cfsbuild.fsverity import kernel
from cfsbuild.store.enforce import enable_all
from cfsbuild.store.fsck import check_store, repair_store
from cfsbuild.store.gc import collect
from cfsbuild.store.store import Store


def say(name: str, value: object) -> None:
    """Print one result that the test looks for."""
    sys.stdout.write(f"RESULT {name}={value}\n")
    sys.stdout.flush()


def measured_as_named(store: Store) -> bool:
    """Ask the kernel about every object."""
    for digest in store.objects.all():
        fd = store.open_object(digest)
        measured = kernel.measure(fd)
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        os.close(fd)
        if measured is None or measured.digest != digest or mode != 0o444:
            return False
    return True


def main(top: Path) -> None:
    """Make a store, look at it, break it, mend it; then take one without fs-verity and enable it."""
    with Store.init(top / "one") as store:
        image = store_driver.build(store, "one")
        say("promised", store.requires_verity)
        say("measured", measured_as_named(store))
        say("same-again", store_driver.build(store, "one") == image)
        say("clean", check_store(store).findings == ())
        path = object_path(store, image)
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)
        say("found", [finding.kind for finding in check_store(store).findings])
        say("mended", repair_store(store).damage == 0 and measured_as_named(store))
        say("collected", len(collect(store, keep_age=0, grace=0).removed))
        say("still-clean", check_store(store).findings == ())
    shutil.copytree(top / "one", top / "two", symlinks=True)
    with Store.open(top / "two") as store:
        say("copy-promised", store.requires_verity)
        store_driver.build(store, "two")
        say("enforced", enable_all(store).enforced)
    with Store.open(top / "two") as store:
        say("now-promised", store.requires_verity)
        say("now-measured", measured_as_named(store) and check_store(store).findings == ())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
