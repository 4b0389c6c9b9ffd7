"""fs-verity in earnest: the store on a kernel and file system that have it, for root and for a user."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import cfsbuild

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "vm"))
import vm  # noqa: E402 (lies with the other tests in a machine)

pytestmark = [pytest.mark.vm, pytest.mark.slow]

EXPECTED = {
    "promised": "True",
    "measured": "True",
    "same-again": "True",
    "clean": "True",
    "found": "['object-mode', 'object-verity']",
    "mended": "True",
    "collected": "3",
    "still-clean": "True",
    "copy-promised": "False",
    "enforced": "True",
    "now-promised": "True",
    "now-measured": "True",
}


def script() -> str:
    files = "".join(
        f"cat >/tmp/{name} <<'END'\n{(HERE / name).read_text()}\nEND\n"
        for name in ("store_driver.py", "verity_driver.py")
    )
    return f"""{files}
chmod 755 /tmp; chmod 644 /tmp/*.py; mkdir /vdisk/user; chown 1000:1000 /vdisk/user
export PYTHONPATH={Path(cfsbuild.__file__).parents[1]}
echo AS root; $PYTHON /tmp/verity_driver.py /vdisk
echo AS user; $PYTHON -c 'import os, sys
os.setgid(1000)
os.setuid(1000)
os.execv(sys.executable, [sys.executable, "/tmp/verity_driver.py", "/vdisk/user"])'
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    vm.require()
    work = tmp_path_factory.mktemp("vm")
    disk = work / "disk"
    vm.make_disk(disk)
    outcome = vm.boot(script(), disk=disk, work=work)
    _, root, user = re.split(r"^AS \w+\n", outcome.output, flags=re.MULTILINE)
    return {"root": root, "user": user}


@pytest.mark.parametrize("who", ["root", "user"])
def test_every_object_has_fs_verity_and_keeps_it(outputs, who):
    results = dict(re.findall(r"^RESULT ([\w-]+)=(.*)$", outputs[who], re.MULTILINE))
    assert results == EXPECTED, outputs[who]
