"""What was sealed without a TPM: tpm2-tools import and unseal it, under each policy, and a TPM refuses all else."""

import hashlib
import itertools

import msgspec
import pytest
import swtpm
from tpm_tools import COUNTER_INDEX, Device

from cfsbuild.errors import InputError, UsageError
from cfsbuild.trust.keys import sign
from cfsbuild.trust.tpm import commands, policy
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.tpm.numbers import PERSISTENT_SRK, Attribute, Comparison
from cfsbuild.trust.tpm.offline import SealedObject, seal
from cfsbuild.trust.tpm.structures import (
    LEGACY_PRIMARY,
    SRK_ECC,
    EccPublic,
    KeyedHashPublic,
    encode_public,
    encode_signature,
    name_of,
    signer_public,
)
from cfsbuild.trust.tpm.transport import open_transport
from cfsbuild.trust.tpm.wire import sized, u64

SECRET = b"open sesame"
ZERO = bytes(32)
REF = b"test/v1"
BOTH = policy.pcr(policy.START, {7: ZERO, 11: ZERO})
PCRS = ("policypcr", "-l", "sha256:7,11")


@pytest.fixture(params=["ecc", "rsa"])
def device(request, machine, tmp_path):
    return Device(machine, tmp_path, request.param)


@pytest.fixture
def ecc_device(machine, tmp_path):
    return Device(machine, tmp_path, "ecc")


def extended(value=ZERO):
    return hashlib.sha256(value + b"\x11" * 32).digest()


def test_registers_release_it_until_one_is_extended(device):
    device.take_in(seal(SECRET, device.srk, BOTH))
    assert device.unseal(PCRS) == SECRET.decode()
    device.extend(11)
    assert "policy check failed" in device.unseal(PCRS, refused="unseal")


def test_a_storage_key_may_encrypt_with_aes_256(machine, tmp_path):
    device = Device(machine, tmp_path, "aes256")
    device.take_in(seal(SECRET, device.srk, BOTH))
    assert device.unseal(PCRS) == SECRET.decode()


def test_either_of_two_states_releases_it(device):
    now, later = BOTH, policy.pcr(policy.START, {7: ZERO, 11: extended()})
    a, b = device.file("a", now), device.file("b", later)
    choice = ("policyor", "-l", f"sha256:{a},{b}")
    device.take_in(seal(SECRET, device.srk, policy.either([now, later])))
    assert device.unseal(PCRS, choice) == SECRET.decode()
    device.extend(11)
    assert device.unseal(PCRS, choice) == SECRET.decode()
    device.extend(11)
    assert "value is out of range" in device.unseal(PCRS, choice, refused="policyor")


def test_a_counter_releases_it_until_it_has_passed(device):
    operand = u64(device.define_counter() + 1)
    digest = policy.nv(BOTH, device.counter_name(), operand, Comparison.UNSIGNED_LE)
    device.take_in(seal(SECRET, device.srk, digest))
    compare = ("policynv", "-C", "o", "-i", device.file("operand", operand), COUNTER_INDEX, "ule")
    assert device.unseal(PCRS, compare) == SECRET.decode()
    device.increment()
    assert device.unseal(PCRS, compare) == SECRET.decode()
    device.increment()
    assert "policy failure" in device.unseal(PCRS, compare, refused="policynv")
    # Asking for less does not help: the operand is part of the policy.
    lie = ("policynv", "-C", "o", "-i", device.file("lie", u64(1000)), COUNTER_INDEX, "ule")
    assert "policy check failed" in device.unseal(PCRS, lie, refused="unseal")
    # Nor does another counter in the same place, with a lower count.
    device.tool("nvundefine", "-C", "o", COUNTER_INDEX)
    assert device.define_counter() > int.from_bytes(operand, "big")
    assert "policy failure" in device.unseal(PCRS, compare, refused="policynv")


def authorization(device, key, approved, ref=REF):
    """Return the steps of a PolicyAuthorize after those that reach `approved`."""
    public = key.public_key()
    signer = device.file("signer", sized(encode_public(signer_public(public))))
    signature = encode_signature(public, sign(key, policy.approval(approved, ref)))
    message = device.file("message", policy.approval(approved, ref))
    name, ticket, context = (device.work / part for part in ("signer.name", "ticket", "signer.ctx"))
    return [
        ("loadexternal", "-C", "o", "-u", signer, "-c", context, "-n", name),
        (
            *("verifysignature", "-c", context, "-g", "sha256", "-m", message),
            *("-s", device.file("signature", signature), "-t", ticket),
        ),
        (
            *("policyauthorize", "-i", device.file("approved", approved), "-n", name, "-t", ticket),
            *("-q", device.file("ref", ref)),
        ),
    ]


@pytest.mark.parametrize("algorithm", ["p256", "rsa2048"])
def test_what_is_sealed_once_is_released_in_each_state_that_was_signed(device, key_of, algorithm):
    key = key_of(algorithm)
    name = name_of(signer_public(key.public_key()))
    device.take_in(seal(SECRET, device.srk, policy.authorize(name, REF)))
    old = authorization(device, key, BOTH)
    assert device.unseal(PCRS, *old) == SECRET.decode()
    device.extend(11)
    assert "value is out of range" in device.unseal(PCRS, *old, refused="policyauthorize")
    new = policy.pcr(policy.START, {7: ZERO, 11: extended()})
    assert device.unseal(PCRS, *authorization(device, key, new)) == SECRET.decode()
    assert "policy check failed" in device.unseal(
        PCRS, *authorization(device, key, new, b"other"), refused="unseal"
    )


def test_a_pin_releases_it_and_the_machine_locks_after_wrong_ones(device):
    device.take_in(seal(SECRET, device.srk, policy.auth_value(BOTH), b"1234"))
    steps = (PCRS, ("policyauthvalue",))
    assert device.unseal(*steps, pin="1234") == SECRET.decode()
    said = [device.unseal(*steps, pin="wrong", refused="unseal") for _ in range(5)]
    assert "authorization HMAC check failed" in said[0]
    assert "lockout" in said[-1]
    assert "lockout" in device.unseal(*steps, pin="1234", refused="unseal")


def test_a_lockout_that_others_cause_stops_nothing_that_has_no_pin(ecc_device):
    device = ecc_device
    device.take_in(seal(SECRET, device.srk, policy.auth_value(BOTH), b"1234"))
    for _ in range(5):
        device.unseal(PCRS, ("policyauthvalue",), pin="wrong", refused="unseal")
    device.take_in(seal(SECRET, device.srk, BOTH))
    assert device.unseal(PCRS) == SECRET.decode()


def test_other_tools_come_to_the_same_digests(ecc_device, tmp_path, key_of):
    device = ecc_device
    signer = name_of(signer_public(key_of("p256").public_key()))
    device.define_counter()
    files = {"name": signer, "a": BOTH, "b": ZERO, "ref": REF, "operand": u64(7)}
    at = {name: device.file(name, data) for name, data in files.items()}
    ours = {
        ("policyor", "-l", f"sha256:{at['a']},{at['b']}"): policy.either([BOTH, ZERO]),
        ("policyauthvalue",): policy.auth_value(policy.START),
        ("policyauthorize", "-n", at["name"], "-q", at["ref"], "-i", at["b"]): policy.authorize(signer, REF),
        ("policynv", "-C", "o", "-i", at["operand"], COUNTER_INDEX, "ult"): policy.nv(
            policy.START, device.counter_name(), u64(7), Comparison.UNSIGNED_LT
        ),
    }
    for step, digest in ours.items():
        device.tool("startauthsession", "-S", tmp_path / "trial")
        device.tool(step[0], "-S", tmp_path / "trial", *step[1:], "-L", tmp_path / "digest")
        device.tool("flushcontext", tmp_path / "trial")
        assert (tmp_path / "digest").read_bytes() == digest, step[0]


@pytest.mark.parametrize("part", ["public", "duplicate", "seed"])
def test_no_changed_byte_is_imported(device, part):
    parts = msgspec.structs.asdict(seal(SECRET, device.srk, BOTH))
    whole = parts[part]
    # Each call of a tool costs as much as a second of computing: some bytes of each part, ends included.
    for at in sorted({0, 8, len(whole) // 2, len(whole) - 1}):
        parts[part] = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert "ERROR" in device.take_in(SealedObject(**parts), ok=False), at


def test_a_tpm_seals_128_bytes_and_no_more(device):
    device.take_in(seal(b"x" * 128, device.srk, BOTH))
    assert device.unseal(PCRS) == "x" * 128
    for length in (0, 129):
        with pytest.raises(UsageError, match="128 bytes") as caught:
            seal(b"x" * length, device.srk, BOTH)
        assert caught.value.reason == "secret"


def test_129_bytes_are_refused_by_the_tpm_too(ecc_device, monkeypatch):
    monkeypatch.setattr("cfsbuild.trust.tpm.offline.SECRET_BYTES", 129)
    said = ecc_device.take_in(seal(b"x" * 129, ecc_device.srk, BOTH), ok=False)
    assert "structure is the wrong size" in said


def test_another_machine_imports_nothing(device, tmp_path):
    sealed = seal(SECRET, device.srk, BOTH)
    with swtpm.running(tmp_path / "other") as machine:
        (tmp_path / "files").mkdir()
        other = Device(machine, tmp_path / "files", "ecc")
        assert "ERROR" in other.take_in(sealed, ok=False)


def test_numbers_with_leading_zeros_are_whole(ecc_device):
    """One seal in 256 makes a key whose x starts with a zero byte, and as many one whose y does."""
    missing = {2, 36}  # where x and y start, each after its length in two bytes
    while missing:
        sealed = seal(SECRET, ecc_device.srk, BOTH)
        assert len(sealed.seed) == 68
        found = {at for at in missing if sealed.seed[at] == 0}
        missing -= found
        if found:
            ecc_device.take_in(sealed)
            assert ecc_device.unseal(PCRS) == SECRET.decode()


@pytest.mark.parametrize("coordinate", ["x", "y"])
def test_a_storage_key_whose_numbers_have_leading_zeros_is_sealed_to(machine, tmp_path, coordinate):
    with Tpm(open_transport(machine.name)) as tpm:
        for number in itertools.count():
            # Another `unique` gives another key; one in 256 is what is looked for.
            key = commands.create_primary(tpm, msgspec.structs.replace(SRK_ECC, x=number.to_bytes(32, "big")))
            if getattr(key.public, coordinate)[0] == 0:
                commands.evict_control(tpm, key, PERSISTENT_SRK)
                tpm.flush(key.handle)
                break
            tpm.flush(key.handle)
    device = Device(machine, tmp_path)
    assert len(getattr(device.srk, coordinate)) == 32
    device.take_in(seal(SECRET, device.srk, BOTH))
    assert device.unseal(PCRS) == SECRET.decode()


@pytest.mark.parametrize(
    ("parent", "problem"),
    [
        (KeyedHashPublic(attributes=0x30472), "no key"),
        (
            EccPublic(attributes=SRK_ECC.attributes | Attribute.SIGN, symmetric=SRK_ECC.symmetric),
            "storage key",
        ),
        (
            EccPublic(attributes=SRK_ECC.attributes & ~Attribute.FIXED_TPM, symmetric=SRK_ECC.symmetric),
            "one TPM",
        ),
        (EccPublic(attributes=SRK_ECC.attributes), "AES"),
        (EccPublic(attributes=SRK_ECC.attributes, name_alg=0xC, symmetric=SRK_ECC.symmetric), "SHA-256"),
        (LEGACY_PRIMARY, "not on the curve|no whole key|infinity|EC point"),
    ],
)
def test_nothing_is_sealed_to_what_can_have_no_children(parent, problem):
    with pytest.raises(InputError) as caught:
        seal(SECRET, parent, BOTH)
    assert caught.value.reason in {"parent", "tpm-structure"}
    assert any(word in caught.value.details for word in problem.split("|")), caught.value.details


def test_pins_and_policies_have_bounds():
    for auth in (b"x" * 33, b"1234\0"):
        with pytest.raises(UsageError, match="PIN"):
            seal(SECRET, SRK_ECC, BOTH, auth)
    with pytest.raises(UsageError, match="32 bytes"):
        seal(SECRET, SRK_ECC, BOTH[1:])
    for values in ({}, {24: ZERO}, {-1: ZERO}, {7: b""}):
        with pytest.raises(UsageError):
            policy.pcr(policy.START, values)
    for count in (0, 1, 9):
        with pytest.raises(UsageError, match="branches"):
            policy.either([BOTH] * count)
