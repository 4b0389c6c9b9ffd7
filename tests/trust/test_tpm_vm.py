"""A TPM as the kernel has it: /dev/tpmrm0 of a machine, with the kernel's resource manager between."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import swtpm

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "vm"))
import vm  # noqa: E402 (lies with the other tests in a machine)

pytestmark = [pytest.mark.vm, pytest.mark.slow]

EXPECTED = """\
no-srk 7
enrolled 0
again True
explained 0
unsealed True
both-at-once True
wrong-pin pin
right-pin released
latched True True
refused pcr-mismatch
why 5 [15]
advanced True
old rollback
counter 2
"""


def test_a_machine_unseals_through_its_kernel(tmp_path):
    if why := vm.missing() or swtpm.missing():
        pytest.skip(why)
    disk = tmp_path / "disk"
    vm.make_disk(disk)
    state = tmp_path / "tpm"
    state.mkdir()
    with tempfile.TemporaryDirectory(prefix="swtpm-") as sockets:
        control = Path(sockets) / "control"
        emulator = subprocess.Popen(
            [
                *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}"),
                *("--ctrl", f"type=unixio,path={control}", "--log", f"file={state / 'log'}"),
            ]
        )
        try:
            outcome = vm.boot(
                f"cat >/tmp/driver.py <<'END'\n{(HERE / 'tpm_driver.py').read_text()}\nEND\n"
                "$PYTHON /tmp/driver.py /tmp 2>/tmp/said || cat /tmp/said\n",
                disk=disk,
                work=tmp_path,
                devices=[
                    *("-chardev", f"socket,id=tpm,path={control}"),
                    *("-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0"),
                ],
            )
        finally:
            emulator.kill()
            emulator.wait()
    assert outcome.output == EXPECTED
