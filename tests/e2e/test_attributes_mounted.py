"""Attributes of a recipe as the kernel and its tools see them in the mounted image."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

RECIPE = """
[image]
name = "m"
[nodes.ping]
kind = "file"
target = "/usr/bin/ping"
content = "x"
mode = "4755"
xattrs = { "user.note" = "hello" }
[nodes.srv]
kind = "dir"
target = "/srv"
mode = "2770"
[nodes.null]
kind = "device"
target = "/dev/null"
type = "char"
major = 1
minor = 3
mode = "0666"
[nodes.users]
kind = "accounts"
users = [{ name = "app", uid = 990, home = "/home/app", create_home = true }]
[nodes.attributes]
kind = "attributes"
needs = ["ping", "srv"]
rules = [
  { match = "/usr/bin/ping", mode = "u-s", group = "app", capabilities = "cap_net_raw+ep" },
  { match = "/srv", acl = "u:app:rwx", default_acl = "u:app:rx" },
]
"""
ACL = """user::rwx
user:990:rwx
group::rwx
mask::rwx
other::---
default:user::rwx
default:user:990:r-x
default:group::rwx
default:mask::rwx
default:other::---"""


def cfsbuild(directory, *arguments):
    command = [sys.executable, "-c", "from cfsbuild.cli.main import main; main()"]
    store = ["--store", directory / "store"]
    return subprocess.run(
        [*command, *store, *arguments], cwd=directory, capture_output=True, text=True, check=False
    )


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.skipif(shutil.which("getfacl") is None, reason="getfacl is not installed")
@pytest.mark.skipif(shutil.which("getcap") is None, reason="getcap is not installed")
def test_capabilities_acls_xattrs_modes_and_owners_are_what_the_recipe_says(tmp_path):
    (tmp_path / "m.toml").write_text(RECIPE)
    built = cfsbuild(tmp_path, "-q", "build", "m.toml")
    assert built.returncode == 0, built.stderr
    point = tmp_path / "mnt"
    point.mkdir()
    mounted = cfsbuild(tmp_path, "mount", "m", point)
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr}")
    try:
        assert output("getcap", point / "usr/bin/ping").split()[-1] == "cap_net_raw=ep"
        assert output("getfacl", "-cn", point / "srv") == ACL
        assert os.getxattr(point / "usr/bin/ping", "user.note") == b"hello"
        assert output("stat", "-c", "%A %u %g", point / "usr/bin/ping") == "-rwxr-xr-x 0 990"
        assert output("stat", "-c", "%A", point / "srv") == "drwxrws---"
        assert output("stat", "-c", "%A %t:%T", point / "dev/null") == "crw-rw-rw- 1:3"
        assert output("stat", "-c", "%A %u %g", point / "home/app") == "drwx------ 990 990"
        assert (point / "etc/passwd").read_text().splitlines()[-1].startswith("app:x:990:990:")
    finally:
        assert cfsbuild(tmp_path, "umount", point).returncode == 0
