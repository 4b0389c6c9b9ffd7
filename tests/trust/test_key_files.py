"""Key files: what is written, who may read it, and what is refused."""

import concurrent.futures
import contextlib
import os
import stat
import subprocess
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.errors import CfsError, InputError, UsageError
from cfsbuild.store import syscalls
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


@pytest.mark.parametrize("call", ["open", "write", "fchmod", "fsync", "rename_new"])
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("end", [KeyboardInterrupt, OSError])
def test_who_is_interrupted_leaves_nothing(tmp_path, key_of, monkeypatch, *, call, at, end):
    module = syscalls if call == "rename_new" else os
    original, calls = getattr(module, call), iter(range(1, 99))

    def fail(*arguments, **options):
        if next(calls) == at:
            raise end
        return original(*arguments, **options)

    key = key_of("ed25519")
    with monkeypatch.context() as patch:
        patch.setattr(module, call, fail)
        with contextlib.suppress(end):
            write_key_pair(tmp_path / "k", key)
            assert next(calls) <= at
            return
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["open", "write", "fchmod", "fsync", "rename_new"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_who_is_killed_leaves_no_half_key(tmp_path, key_of, *, call, at):
    # A fork is enough: what ends without a word runs nothing of Python's own.
    module = syscalls if call == "rename_new" else os
    original, calls = getattr(module, call), iter(range(1, 99))

    def end(*arguments, **options):
        if next(calls) == at:
            os._exit(9)
        return original(*arguments, **options)

    key = key_of("ed25519")
    child = os.fork()
    if child == 0:
        setattr(module, call, end)
        write_key_pair(tmp_path / "k", key)
        os._exit(0)
    os.waitpid(child, 0)
    private, public = tmp_path / "k.key", tmp_path / "k.pub"
    if private.exists():
        assert read_private_key(private, no_passphrase)
    if public.exists():
        assert private.exists()
        assert read_public_key(public)
    for path in tmp_path.iterdir():
        assert b"PRIVATE" not in path.read_bytes() or stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_that_make_the_same_key_at_once_make_one(tmp_path, key_of):
    pairs = [key_of("ed25519"), key_of("ed25519", 1)]
    barrier = threading.Barrier(2)

    def make(key):
        barrier.wait()
        try:
            write_key_pair(tmp_path / "k", key)
        except UsageError as error:
            return error.reason
        return key_id(key.public_key())

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        told = list(pool.map(make, pairs))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k.key", "k.pub"]
    (made,) = [name for name in told if name != "key-exists"]
    assert key_id(read_public_key(tmp_path / "k.pub")) == made
    assert key_id(read_private_key(tmp_path / "k.key", no_passphrase).public_key()) == made


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


def test_keys_for_rsa_pss_only_are_refused(tmp_path, openssl):
    private, public = tmp_path / "k.key", tmp_path / "k.pub"
    openssl("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", "-out", private)
    private.chmod(0o600)
    public.write_bytes(openssl("pkey", "-in", private, "-pubout"))
    crlf = tmp_path / "crlf.pub"
    crlf.write_bytes(public.read_bytes().replace(b"\n", b"\r\n"))
    for read in (
        lambda: read_private_key(private, no_passphrase),
        lambda: read_public_key(public),
        lambda: read_public_key(crlf),
    ):
        with pytest.raises(InputError, match="RSA-PSS") as caught:
            read()
        assert caught.value.reason == "key-algorithm"


def test_a_private_key_is_not_taken_for_a_public_one(pair):
    with pytest.raises(UsageError, match="is a private key"):
        read_public_key(pair[0])
    pair[1].chmod(0o600)
    with pytest.raises(UsageError, match="is a public key"):
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
