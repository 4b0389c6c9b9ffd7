"""A Debian with systemd boots from an image as it is, read-only, every read checked by the kernel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import vm

pytestmark = [pytest.mark.vm, pytest.mark.slow]

RECIPE = """\
[image]
name = "debian"
epoch = 1767225600
[nodes.root]
kind = "archive"
source = "root.tar"
exclude = ["/dev/*", "/var/cache/apt/**", "/var/lib/apt/lists/**"]
[nodes.hello]
kind = "file"
target = "/etc/systemd/system/hello.service"
raw = true
content = '''
[Unit]
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
TTYPath=/dev/console
ExecStart=/bin/sh -c 'echo HELLO $(systemctl is-active multi-user.target) $(grep -c verity=require /proc/mounts)'
ExecStart=systemctl --no-block poweroff
'''
# Without udev nobody says that the terminal is there, and this would wait for it.
[nodes.masked]
kind = "symlink"
target = "/etc/systemd/system/serial-getty@ttyS0.service"
to = "/dev/null"
[nodes.wanted]
kind = "symlink"
target = "/etc/systemd/system/graphical.target.wants/hello.service"
to = "../hello.service"
"""


def test_a_debian_with_systemd_boots_and_is_switched_off(tmp_path):
    vm.require()
    if shutil.which("mmdebstrap") is None:
        pytest.skip("mmdebstrap is not installed")
    sources = [*Path("/etc/apt/sources.list.d").glob("*.sources"), *Path("/etc/apt").glob("sources.list")]
    command = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--include=systemd-sysv",
        "bookworm",
        tmp_path / "root.tar",
    ]
    made = subprocess.run([*command, *map(str, sources[:1])], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mmdebstrap failed: {made.stderr[-300:]}")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    places = {"CFSBUILD_STORE": tmp_path / "store", "XDG_CACHE_HOME": tmp_path / "cache"}
    kernel = ("--kernel", vm.CACHE / "vmlinuz")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "cfsbuild.cli.main",
            "vm",
            tmp_path / "recipe.toml",
            *kernel,
            "--timeout",
            "400",
        ],
        env=os.environ | {name: str(place) for name, place in places.items()},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    console = result.stdout.decode(errors="replace")
    assert result.returncode == 0, console[-3000:] + result.stderr.decode(errors="replace")
    assert "HELLO active 1" in console
