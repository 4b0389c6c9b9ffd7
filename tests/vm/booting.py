"""Starting machines as a user does, with `cfsbuild vm`, all of what is kept below one directory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import vm

from cfsbuild.deploy.state_disk import make_state_disk
from cfsbuild.store.store import Store

APPLIANCE = Path(__file__).resolve().parents[2] / "recipes/appliance.toml"


def command_line(*arguments, recipe=APPLIANCE):
    kernel = vm.CACHE / "vmlinuz"
    return [sys.executable, "-m", "cfsbuild.cli.main", "vm", recipe, "--kernel", kernel, *arguments]


def environment(home):
    (home / "tmp").mkdir(exist_ok=True)
    places = {"CFSBUILD_STORE": home / "store", "XDG_CACHE_HOME": home / "cache", "TMPDIR": home / "tmp"}
    return os.environ | {name: str(place) for name, place in places.items()}


def boot(home, *arguments, recipe=APPLIANCE):
    """Run `cfsbuild vm`; return what a user sees."""
    return subprocess.run(
        command_line(*arguments, recipe=recipe),
        env=environment(home),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
        text=True,
    )


def another_disk(home, said, name, **files):
    """Return a disk like the kept one, as it was before its first start, but for some `files` on it."""
    disk = home / name
    shutil.copytree(home / "disk.trust", home / f"{name}.trust")
    shutil.copytree(home / "disk.tpm", home / f"{name}.tpm", ignore=shutil.ignore_patterns(".lock"))
    kept = {path.name: path.read_bytes() for path in (home / "disk.trust").iterdir()}
    names = ("boot.bundle", "boot.cfsb", "boot.policy.json", "boot.cred")
    contents = {one: kept[one] for one in names if one in kept} | files
    with Store.open(home / "store", read_only=True) as store:
        make_state_disk(disk, store, bytes.fromhex(said["digest"]), name="appliance-1", files=contents)
    return disk
