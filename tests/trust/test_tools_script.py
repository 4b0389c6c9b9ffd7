"""The script for tpm2-tools releases the same key as we do, in the same states, and leaves nothing behind."""

import os
import shutil
import subprocess

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from enrolled import PAYLOAD, ZERO

from cfsbuild.errors import UsageError
from cfsbuild.trust import sealed, tools_script
from cfsbuild.trust.tpm.wire import sized
from cfsbuild.trust.unseal_policy import Branch, approve

OTHER = "11" * 32
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.fixture
def script(enrolled, tmp_path):
    """Return what seals, writes the script and its files, and runs it."""
    for name in ("tpm2_startauthsession", "cmp"):
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
    temporary = tmp_path / "temporary"
    temporary.mkdir()

    def run(document, *, data=None, shell="sh", refused=False):
        data = data or enrolled.seal(document)
        slot = sealed.parse(data).slots[0]
        for suffix, part in ((".pub", slot.public), (".priv", slot.duplicate), (".seed", slot.seed)):
            (tmp_path / f"edge.cfsb{suffix}").write_bytes(sized(part))
        path = tmp_path / "edge.unseal.sh"
        path.write_bytes(tools_script.render(document))
        done = subprocess.run(
            [shell, *(["ash"] if shell == "busybox" else []), path, tmp_path / "edge.cfsb"],
            env={**os.environ, "TPM2TOOLS_TCTI": enrolled.machine.tools, "TMPDIR": str(temporary)},
            capture_output=True,
            check=False,
            timeout=30,
        )
        assert list(temporary.iterdir()) == []
        assert enrolled.machine.handles() == []
        assert (done.returncode != 0) == refused, done.stderr.decode()
        if refused:
            assert done.stdout == b""
            return done.stderr.decode()
        bundle = sealed.parse(data)
        return AESGCM(done.stdout).decrypt(bundle.head[-12:], bundle.encrypted, bundle.head)

    return run


@pytest.mark.parametrize("shell", SHELLS)
def test_it_opens_what_was_sealed(enrolled, script, shell):
    assert script(enrolled.policy(), shell=shell) == PAYLOAD


@pytest.mark.parametrize("algorithm", ["p256", "rsa2048"])
def test_it_opens_what_a_key_approved(enrolled, script, key_of, algorithm):
    document = approve(enrolled.policy(), key_of(algorithm))
    assert script(document) == PAYLOAD
    forged = msgspec.structs.replace(document, branches=[Branch({"8": ZERO})])
    assert "signature" in script(forged, refused=True)


def test_it_opens_what_was_approved_for_no_purpose_in_particular(enrolled, script, key_of):
    assert script(approve(enrolled.policy(), key_of("p256"), b"")) == PAYLOAD


def test_it_finds_the_state_that_fits(enrolled, script):
    fits = Branch({"7": ZERO}, enrolled.limit(1))
    not_this = Branch({"7": OTHER})
    assert script(enrolled.policy(not_this, fits)) == PAYLOAD
    assert script(enrolled.policy(fits, not_this)) == PAYLOAD


def test_there_is_none_where_the_tools_would_show_the_pin_to_others(enrolled):
    with pytest.raises(UsageError) as caught:
        tools_script.render(enrolled.policy(auth_value=True))
    assert caught.value.reason == "pin"


def test_it_refuses_in_other_states(enrolled, script):
    document = enrolled.policy()
    data = enrolled.seal(document)
    enrolled.machine.tool("nvincrement", "-C", "o", "0x01800100")
    assert script(document, data=data) == PAYLOAD
    enrolled.machine.tool("nvincrement", "-C", "o", "0x01800100")
    assert "no state that the policy names" in script(document, data=data, refused=True)
    one = enrolled.policy(Branch({"11": ZERO}))
    data = enrolled.seal(one)
    enrolled.machine.tool("pcrextend", "11:sha256=" + OTHER)
    assert "no state that the policy names" in script(one, data=data, refused=True)


def test_a_counter_that_was_made_again_is_another_state(enrolled, script):
    document = enrolled.policy(Branch({}, enrolled.limit(100)))
    data = enrolled.seal(document)
    enrolled.machine.tool("nvundefine", "-C", "o", "0x01800100")
    attributes = "nt=counter|ownerwrite|ownerread|authread|no_da"
    enrolled.machine.tool("nvdefine", "0x01800100", "-C", "o", "-s", 8, "-a", attributes)
    enrolled.machine.tool("nvincrement", "-C", "o", "0x01800100")
    assert "no state that the policy names" in script(document, data=data, refused=True)


def test_it_is_a_clean_script(enrolled, key_of, tmp_path):
    document = approve(enrolled.policy(), key_of("p256"))
    path = tmp_path / "script"
    path.write_bytes(tools_script.render(document))
    for shell in SHELLS:
        command = [shell, *(["ash"] if shell == "busybox" else []), "-n", path]
        subprocess.run(command, check=True)
    usage = subprocess.run(["sh", path], capture_output=True, text=True, check=False)
    assert usage.returncode == 2
    assert "BUNDLE.cfsb" in usage.stderr
