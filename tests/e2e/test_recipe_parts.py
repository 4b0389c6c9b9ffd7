"""Parts that recipes include, tried with the programs that they are for."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cfsbuild.build.pipeline import Options, build, make_request
from cfsbuild.erofs.reader import read_image

PARTS = Path(__file__).resolve().parents[2] / "recipes/parts"


@pytest.fixture
def contents(tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(f'include = ["{PARTS / "ssh-host-keys.toml"}"]\n[image]\nname = "r"\n')
    request = make_request(recipe, store=tmp_path / "store", output=tmp_path / "out")
    build(request, Options(), environ={})
    image = read_image((tmp_path / "out/r.cfs").read_bytes())
    store = tmp_path / "store/objects"

    def content(entry):
        return entry.content or (store / entry.digest.hex()[:2] / entry.digest.hex()[2:]).read_bytes()

    return {
        entry.path.decode(): content(entry).decode()
        for entry in image.entries()
        if entry.mode & 0o170000 == 0o100000
    }


def test_host_keys_are_made_once_by_the_command_of_the_unit(contents, tmp_path):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    unit = contents["/usr/lib/systemd/system/ssh-host-keys.service"]
    (command,) = re.findall(r"^ExecStart=(/usr/bin/ssh-keygen .*)$", unit, re.MULTILINE)
    (used,) = re.findall(r"^HostKey (.*)$", contents["/etc/ssh/sshd_config.d/host-keys.conf"], re.MULTILINE)
    assert f"ConditionPathExists=!{used}" in unit
    assert used in command
    command = command.replace("/usr/bin/ssh-keygen", "ssh-keygen").replace(used, str(tmp_path / "key"))
    subprocess.run(["sh", "-c", command], check=True)
    assert (tmp_path / "key.pub").read_text().startswith("ssh-ed25519 ")


def test_systemd_understands_the_unit(contents, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "ssh-host-keys.service"
    unit.write_text(contents["/usr/lib/systemd/system/ssh-host-keys.service"])
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert "Unknown" not in done.stderr
    assert "ssh-host-keys.service:" not in done.stderr.replace("is not executable", "")
