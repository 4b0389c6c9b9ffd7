"""Each command of docs/sealing.md does what the page says, on a machine with a TPM."""

import re
import shlex
from pathlib import Path

from kernel_images import portable_executable

from cfsbuild.trust.tpm import pcr
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.transport import open_transport

PAGE = Path(__file__).parents[2] / "docs" / "sealing.md"
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for line in block.splitlines()
]


def test_the_guide_works_from_the_first_to_the_last_command(lab, run, machine):
    lab.image("edge.cfs")
    Path("linux.efi").write_bytes(portable_executable((".linux", b"kernel", None)))

    def do(line):
        program, *arguments = shlex.split(line)
        assert program == "cfsbuild"
        if arguments[0] in {"enroll", "unseal", "advance"}:
            arguments += ["--tpm", machine.name]
        return run(*arguments)

    boot = [b".linux\0", b"kernel", b"enter-initrd"]
    for line in COMMANDS:
        done = do(line)
        assert done.status == 0, (line, done.err)
        if "--policy-only" in line:
            # The state that was approved is another one than that of the first policy.
            unseal = next(line for line in COMMANDS if "--explain" in line)
            assert do(unseal).status == 5
            with Tpm(open_transport(machine.name)) as tpm:
                for event in boot:
                    pcr.extend_pcr(tpm, 11, event)
            assert do(unseal).status == 0
    # The generation was 1, and the counter at enrolment 1: so 2 is the last value at which it opens.
    assert do(unseal).status == 0
    assert do("cfsbuild advance 3").status == 0
    refused = do(unseal)
    assert refused.status == 5
    assert "rollback" in refused.text
    assert Path("edge.pcrsig").exists()
