"""Whatever bytes come from outside: an expected error or the truth, and soon.

Each document is damaged in the way that finds most: a good one with a piece replaced, fields of it changed in
a form that still decodes, and bytes that have nothing to do with it.
"""

import base64
import json

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from cfsbuild.errors import CfsError, VerificationError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.trust import dsse, fsverity_signature, keys, pkcs7, statement
from cfsbuild.trust.key_files import public_pem, read_private_key, read_public_key, write_key_pair

TYPE = "application/x-test"
PAYLOAD = b"what is signed"
DIGEST = bytes(range(32))

in_one_place = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=1000)


def damaged(whole):
    """Return a strategy of `whole` with a piece replaced, repeated or left out."""
    places = st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole))).map(sorted)
    pieces = st.one_of(
        st.binary(max_size=12),
        places.map(lambda place: whole[place[0] : place[1]]),
        st.sampled_from(
            [b"\xff" * 40, b"0" * 5000, b"[" * 5000, b"\x30\x80" * 2000, b"\x30\x84\xff\xff\xff\xff"]
        ),
    )
    return st.tuples(places, pieces).map(lambda drawn: whole[: drawn[0][0]] + drawn[1] + whole[drawn[0][1] :])


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=40),
        st.sampled_from(["1e999", "A" * 32, "a" * 32, "é", "\ud800", "=", "AA==", TYPE]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=12), inner, max_size=3)
    ),
    max_leaves=8,
)


def canonical(document):
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@pytest.fixture(scope="session")
def key(key_of):
    return key_of("ed25519", 1)


@pytest.fixture(scope="session")
def envelope(key):
    return dsse.sign(TYPE, PAYLOAD, key)


@given(st.data())
@in_one_place
def test_an_envelope_with_other_bytes_is_refused(key, envelope, data):
    changed = data.draw(st.one_of(damaged(envelope), st.binary(max_size=200)))
    assume(changed != envelope)
    with pytest.raises(CfsError):
        dsse.verify(changed, TYPE, [key.public_key()])
    try:
        merged = dsse.merge(envelope, changed)
    except CfsError:
        return
    assert merged is None or dsse.decode(merged)


@given(st.data())
@in_one_place
def test_an_envelope_with_other_fields_says_nothing_else(key, envelope, data):
    document = json.loads(envelope)
    places = [(document, name) for name in (*document, "more")]
    places += [(document["signatures"][0], name) for name in ("keyid", "sig", "more")]
    for where, name in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3)):
        where[name] = data.draw(json_values)
    changed = canonical(document)
    assume(changed != envelope)
    with pytest.raises(CfsError):
        dsse.verify(changed, TYPE, [key.public_key()])


STATEMENT = statement.ImageStatement(
    name="edge", version="7", image=statement.ImageFile("fsverity-sha256-12:" + "0" * 64, "erofs.v1", 4096)
)


@given(st.one_of(damaged(statement.encode_statement(STATEMENT)), st.binary(max_size=200)))
@in_one_place
def test_a_statement_decodes_to_what_encodes_to_it(data):
    try:
        decoded = statement.decode_statement(data)
    except VerificationError:
        return
    assert statement.encode_statement(decoded) == data


@given(st.data())
@in_one_place
def test_a_statement_with_other_fields_is_checked_in_each(data):
    document = json.loads(statement.encode_statement(STATEMENT))
    places = [(document, name) for name in (*document, "more")]
    places += [(document["image"], name) for name in (*document["image"], "more")]
    where, name = data.draw(st.sampled_from(places))
    where[name] = data.draw(json_values)
    changed = canonical(document)
    try:
        decoded = statement.decode_statement(changed)
    except VerificationError:
        return
    assert statement.encode_statement(decoded) == changed
    assert decoded.name.isascii()
    assert decoded.image.size > 0


@pytest.fixture(scope="session")
def key_texts(tmp_path_factory, key_of):
    base = tmp_path_factory.mktemp("keys")
    texts = []
    for number, algorithm in enumerate(["ed25519", "p256", "rsa2048"]):
        private, public = write_key_pair(base / str(number), key_of(algorithm))
        texts += [private.read_bytes(), public.read_bytes()]
    return texts


def rewrap(text, data):
    """Return a PEM text whose DER is damaged: what the frame says is still true."""
    begin, *lines, end = text.decode().splitlines()
    body = data.draw(damaged(base64.b64decode("".join(lines))))
    return "\n".join([begin, base64.b64encode(body).decode(), end, ""]).encode()


@given(st.data())
@in_one_place
def test_a_key_file_is_a_known_key_or_an_error(tmp_path, key_texts, data):
    text = data.draw(st.sampled_from(key_texts))
    changed = data.draw(damaged(text)) if data.draw(st.booleans()) else rewrap(text, data)
    path = tmp_path / "k"
    path.write_bytes(changed)
    path.chmod(0o600)
    for read in (read_public_key, lambda path: read_private_key(path, lambda: b"open sesame")):
        try:
            found = read(path)
        except CfsError:
            continue
        assert keys.algorithm_of(found)


def test_an_encrypted_key_that_is_cut_off_is_refused(tmp_path, key_of):
    # How long opening it takes stands in such a file, and is its owner's to say: nothing but its end is changed.
    path, _ = write_key_pair(tmp_path / "locked", key_of("ed25519"), b"open sesame")
    whole = path.read_bytes()
    for end in range(0, len(whole) - len("-----\n"), 7):
        path.write_bytes(whole[:end])
        with pytest.raises(CfsError):
            read_private_key(path, lambda: b"open sesame")


def test_public_keys_of_other_lengths_and_kinds_are_refused_without_fuss(tmp_path, key_of):
    text = public_pem(key_of("ed25519").public_key())
    for size in range(1, 44):
        path = tmp_path / "k"
        body = base64.b64decode(text.split(b"-----")[2])[:size]
        path.write_bytes(
            b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(body) + b"\n-----END PUBLIC KEY-----\n"
        )
        with pytest.raises(CfsError):
            read_public_key(path)


@given(st.data())
@settings(in_one_place, max_examples=200)
def test_pkcs7_with_other_bytes_is_refused(signer_of, data):
    signer = signer_of(data.draw(st.sampled_from(["rsa2048", "p256"])))
    good = fsverity_signature.sign_digest(signer.key, signer.certificate, DIGEST, Algorithm.SHA256)
    changed = data.draw(st.one_of(damaged(good), st.binary(max_size=300)))
    assume(changed != good)
    with pytest.raises(CfsError):
        fsverity_signature.verify(changed, signer.certificate, lambda _: DIGEST)
    try:
        attached = fsverity_signature.attach(changed, signer.certificate, DIGEST, Algorithm.SHA256)
    except CfsError:
        return
    assert fsverity_signature.verify(attached, signer.certificate, lambda _: DIGEST)


@given(signature=st.binary(max_size=100), algorithm=st.sampled_from(list(Algorithm)))
@in_one_place
@example(signature=b"", algorithm=Algorithm.SHA256)
def test_what_pkcs7_decodes_to_encodes_to_it(signer_of, signature, algorithm):
    certificate = signer_of("p256").certificate
    data = pkcs7.encode(certificate, pkcs7.Parts(algorithm, signature))
    try:
        parts = pkcs7.decode(data, certificate)
    except CfsError:
        assert not 8 <= len(signature) <= 72
        return
    assert parts == pkcs7.Parts(algorithm, signature)


@given(st.data())
@in_one_place
def test_a_certificate_is_usable_or_an_error(tmp_path, signer_of, data):
    signer = signer_of(data.draw(st.sampled_from(["rsa2048", "p256", "ed25519"])))
    path = tmp_path / "c"
    text = signer.path.read_bytes()
    path.write_bytes(data.draw(damaged(text)) if data.draw(st.booleans()) else rewrap(text, data))
    try:
        certificate = fsverity_signature.read_certificate(path)
        made = fsverity_signature.sign_digest(signer.key, certificate, DIGEST, Algorithm.SHA256)
    except CfsError:
        return
    identity = fsverity_signature.verify(made, certificate, lambda _: DIGEST)
    assert identity == keys.key_id(signer.key.public_key())
