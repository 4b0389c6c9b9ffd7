"""Key files: what is written, who may read it, and what is refused."""

import contextlib
import os
import stat
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.errors import CfsError, InputError, UsageError
from cfsbuild.trust.key_files import public_pem, read_private_key, read_public_key, write_key_pair
from cfsbuild.trust.keys import key_id


def no_passphrase():
    raise AssertionError("no passphrase is needed")


@pytest.fixture
def pair(tmp_path, key_of):
    return write_key_pair(tmp_path / "k", key_of("ed25519"))


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_only_the_owner_can_read_the_private_key_whatever_the_umask(tmp_path, key_of, umask):
    before = os.umask(umask)
    try:
        private, public = write_key_pair(tmp_path / "k", key_of("ed25519"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) == 0o644
    assert private.name == "k.key"
    assert public.name == "k.pub"


@pytest.mark.parametrize("algorithm", ["ed25519", "p256", "rsa2048"])
def test_what_is_written_is_read_again(tmp_path, key_of, algorithm):
    private, public = write_key_pair(tmp_path / "k", key_of(algorithm))
    wanted = key_id(key_of(algorithm).public_key())
    assert key_id(read_private_key(private, no_passphrase).public_key()) == wanted
    assert key_id(read_public_key(public)) == wanted


def test_a_key_is_never_replaced_and_no_half_pair_is_left(tmp_path, key_of):
    (tmp_path / "k.pub").write_text("mine")
    with pytest.raises(UsageError, match=r"k\.pub is there already"):
        write_key_pair(tmp_path / "k", key_of("ed25519"))
    assert [path.name for path in tmp_path.iterdir()] == ["k.pub"]
    assert (tmp_path / "k.pub").read_text() == "mine"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_private_key_that_others_can_reach_is_refused(pair, mode):
    pair[0].chmod(mode)
    with pytest.raises(UsageError, match="others can read") as caught:
        read_private_key(pair[0], no_passphrase)
    assert caught.value.reason == "key-readable"
    assert f"chmod 600 {pair[0]}" in caught.value.resolution


def test_a_passphrase_opens_an_encrypted_key_and_no_other_does(tmp_path, key_of):
    private, _ = write_key_pair(tmp_path / "k", key_of("ed25519"), b"open sesame")
    assert b"ENCRYPTED" in private.read_bytes()
    assert read_private_key(private, lambda: b"open sesame")
    for wrong in (b"open sesam", b"x", b"open sesame "):
        with pytest.raises(UsageError, match="does not open"):
            read_private_key(private, lambda wrong=wrong: wrong)


def test_openssl_reads_both_files(tmp_path, key_of, openssl):
    private, public = write_key_pair(tmp_path / "k", key_of("ed25519"), b"secret")
    assert openssl("pkey", "-in", private, "-passin", "pass:secret", "-pubout") == public.read_bytes()


def test_a_key_in_an_older_form_is_refused_with_the_command_that_mends_it(tmp_path, openssl):
    old = tmp_path / "old.key"
    old.write_bytes(openssl("genrsa", "-traditional", "2048"))
    old.chmod(0o600)
    with pytest.raises(InputError, match="PKCS#8") as caught:
        read_private_key(old, no_passphrase)
    new = tmp_path / "new.key"
    done = subprocess.run(
        [*caught.value.resolution.partition(" makes")[0].split(), "-nocrypt", "-out", new],
        check=True,
        capture_output=True,
    )
    assert done.returncode == 0
    new.chmod(0o600)
    assert read_private_key(new, no_passphrase)


def test_a_private_key_is_not_taken_for_a_public_one(pair):
    with pytest.raises(UsageError, match="is a private key"):
        read_public_key(pair[0])
    pair[1].chmod(0o600)
    with pytest.raises(InputError, match="not a private key"):
        read_private_key(pair[1], no_passphrase)


@pytest.mark.parametrize(
    "damage", [lambda data: data + data, lambda data: data[:40], lambda _: b"\n" * 99999]
)
def test_files_that_are_not_one_key_are_refused(pair, damage):
    pair[1].write_bytes(damage(pair[1].read_bytes()))
    with pytest.raises(InputError):
        read_public_key(pair[1])


def test_a_fifo_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "k.key", 0o600)
    with pytest.raises(InputError, match="regular file"):
        read_private_key(tmp_path / "k.key", no_passphrase)


@given(st.data())
def test_damage_anywhere_is_an_expected_error(tmp_path_factory, key_of, data):
    whole = public_pem(key_of("p256").public_key())
    at = data.draw(st.integers(0, len(whole) - 1))
    piece = data.draw(st.binary(max_size=4))
    path = tmp_path_factory.getbasetemp() / "damaged.pub"
    path.write_bytes(whole[:at] + piece + whole[at + data.draw(st.integers(0, 4)) :])
    with contextlib.suppress(CfsError):
        read_public_key(path)
