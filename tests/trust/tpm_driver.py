"""What a machine with a real TPM device does: enrol, unseal, refuse. Prints one line for each promise."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

from cfsbuild.cli.main import main
from cfsbuild.errors import CfsError
from cfsbuild.trust import counter, enrolment, sealed, unseal_policy, unsealing
from cfsbuild.trust.keys import KeyAlgorithm, generate
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.pcr import active_banks, extend_pcr, read_pcrs
from cfsbuild.trust.tpm.transport import open_transport
from cfsbuild.trust.unseal_policy import Branch, CounterLimit, UnsealPolicy, approve

PAYLOAD = b"what was sealed"


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def verb(*arguments):
    """Return the status of a verb, and what it printed."""
    out = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(out):
        status = main([str(argument) for argument in arguments])
    return status, out.buffer.getvalue()


def refused(data, document, **more):
    try:
        with Tpm(open_transport()) as tpm:
            unsealing.unseal(tpm, data, document, **more)
    except CfsError as error:
        return error.reason
    return "released"


def run(work):
    os.chdir(work)
    say("no-srk", verb("enroll")[0])
    say("enrolled", verb("enroll", "--create-srk", "--output", "m.json")[0])
    machine = enrolment.decode(Path("m.json").read_bytes())
    say("again", verb("enroll")[1] == Path("m.json").read_bytes())
    limit = CounterLimit(machine.counter.index, machine.counter.name, machine.counter.base + 1)
    branch = Branch({number: machine.pcrs[number] for number in ("7", "11", "15")}, limit)
    document = approve(UnsealPolicy(name="edge", branches=[branch]), generate(KeyAlgorithm.P256))
    srk = enrolment.key_public(machine.srk)
    data = sealed.seal(PAYLOAD, [sealed.Recipient(srk, unseal_policy.policy_digest(document))])
    Path("edge.cfsb").write_bytes(data)
    Path("edge.policy.json").write_bytes(unseal_policy.encode(document))
    say("explained", verb("unseal", "--explain", "edge.cfsb")[0])
    say("unsealed", verb("unseal", "edge.cfsb") == (0, PAYLOAD))
    both = [
        subprocess.Popen([sys.executable, "-m", "cfsbuild", "unseal", "edge.cfsb"], stdout=-1) for _ in "ab"
    ]
    say("both-at-once", [each.communicate()[0] for each in both] == [PAYLOAD] * 2)

    pinned = UnsealPolicy(name="edge", branches=[branch], auth_value=True)
    recipient = sealed.Recipient(srk, unseal_policy.policy_digest(pinned), b"1234")
    with_pin = sealed.seal(PAYLOAD, [recipient])
    say("wrong-pin", refused(with_pin, pinned, pin=lambda: b"1"))
    say("right-pin", refused(with_pin, pinned, pin=lambda: b"1234"))

    with Tpm(open_transport()) as tpm:
        before = read_pcrs(tpm, [15])[15]
        extend_pcr(tpm, 15, b"mounted")
        say("latched", read_pcrs(tpm, [15])[15] != before, len(active_banks(tpm)) > 0)
    say("refused", refused(data, document))
    status, told = verb("unseal", "--explain", "edge.cfsb", "--json")
    registers = json.loads(told)["branches"][0]["registers"]
    say("why", status, [each["pcr"] for each in registers if not each["fits"]])
    say(
        "advanced",
        verb("advance", machine.counter.base + 2)[1].decode().strip() == str(machine.counter.base + 2),
    )
    only_counter = UnsealPolicy(name="edge", branches=[Branch({}, limit)])
    recipient = sealed.Recipient(srk, unseal_policy.policy_digest(only_counter))
    say("old", refused(sealed.seal(PAYLOAD, [recipient]), only_counter))
    with Tpm(open_transport()) as tpm:
        say("counter", counter.read_counter(tpm).value - machine.counter.base)


if __name__ == "__main__":
    run(sys.argv[1])
