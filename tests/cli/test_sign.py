"""key, sign, verify --key: an image that is signed, here or elsewhere, and what is refused."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import utils

from cfsbuild.cli.key import ALGORITHMS
from cfsbuild.trust.key_files import read_private_key
from cfsbuild.trust.keys import KeyAlgorithm, sign


@pytest.fixture
def image(lab):
    return lab.image()


@pytest.fixture
def key(lab, run):
    assert run("key", "new", "k").status == 0
    return Path("k.key")


def test_a_signed_image_verifies_and_names_who_signed(lab, run, image, key):
    made = run("key", "show", "k.pub")
    identity = made.text.split()[0]
    signed = run("sign", "a.cfs", "--key", key)
    assert signed.status == 0, signed.err
    assert signed.text == "a.cfs.dsse\n"
    result = run("verify", "a.cfs", "--key", "k.pub")
    assert result.status == 0, result.err
    assert result.lines[2:4] == ["  signed   as a", f"           by {identity}"]
    assert run("verify", "a.cfs", "--key", "k.pub", "--json").json["signers"] == [identity]
    # The private key says the same about itself.
    assert run("key", "show", key).text.split()[0] == identity


def test_without_a_key_no_signature_is_looked_at(lab, run, image):
    Path("a.cfs.dsse").write_text("nonsense")
    assert run("verify", "a.cfs").status == 0


@pytest.mark.parametrize("algorithm", ["ed25519", "p256"])
def test_both_kinds_sign_images(lab, run, image, algorithm):
    assert run("key", "new", "k", "--algorithm", algorithm).status == 0
    assert run("sign", "a.cfs", "--key", "k.key").status == 0
    assert run("verify", "a.cfs", "--key", "k.pub").status == 0


def test_every_way_of_cheating_has_its_own_reason(lab, run, refused, image, key):
    run("key", "new", "other")
    assert refused("a.cfs", "--key", "k.pub") == "signature-missing"
    run("sign", "a.cfs", "--key", "other.key")
    assert refused("a.cfs", "--key", "k.pub") == "signature-missing"
    assert refused("a.cfs", "--key", "k.pub", "--key", "other.pub", "--threshold", "2") == (
        "signature-threshold"
    )
    run("sign", "a.cfs", "--key", key)
    good = Path("a.cfs.dsse").read_bytes()
    Path("a.cfs.dsse").write_bytes(good[:-1])
    assert refused("a.cfs", "--key", "k.pub") == "malformed"
    Path("a.cfs.dsse").write_bytes(b" " * (2 << 20))
    assert refused("a.cfs", "--key", "k.pub") == "malformed"
    Path("a.cfs.dsse").write_bytes(good)
    lab.image(edit=lambda text: text.replace("edge", "evil"))
    assert refused("a.cfs", "--key", "k.pub") == "signature-other-image"
    assert "Traceback" not in run("verify", "a.cfs", "--key", "k.pub").err


def test_a_second_signature_is_added_and_both_can_be_asked_for(lab, run, image, key):
    run("key", "new", "other", "--algorithm", "p256")
    run("sign", "a.cfs", "--key", key)
    assert run("sign", "a.cfs", "--key", "other.key").status == 0
    both = run("verify", "a.cfs", "--key", "k.pub", "--key", "other.pub", "--threshold", "2", "--json")
    assert both.status == 0
    assert len(both.json["signers"]) == 2


def test_two_keys_at_once_give_the_same_file(lab, run, image, key):
    run("key", "new", "other")
    run("sign", "a.cfs", "--key", key)
    run("sign", "a.cfs", "--key", "other.key")
    one_by_one = Path("a.cfs.dsse").read_bytes()
    Path("a.cfs.dsse").unlink()
    run("sign", "a.cfs", "--key", key, "--key", "other.key")
    assert Path("a.cfs.dsse").read_bytes() == one_by_one


def test_signing_a_new_image_replaces_the_old_signature_and_says_so(lab, run, image, key):
    run("sign", "a.cfs", "--key", key)
    lab.image(edit=lambda text: text.replace("edge", "core"))
    again = run("sign", "a.cfs", "--key", key)
    assert "was of another image or version: replaced" in again.err
    assert run("verify", "a.cfs", "--key", "k.pub").status == 0


def test_the_name_and_version_are_signed(lab, run, refused, image, key):
    signed = run("sign", "a.cfs", "--key", key, "--name", "edge", "--image-version", "7", "--json").json
    assert (signed["name"], signed["image_version"]) == ("edge", "7")
    seen = run("verify", "a.cfs", "--key", "k.pub", "--name", "edge", "--image-version", "7", "--json")
    assert (seen.json["signed_name"], seen.json["signed_version"]) == ("edge", "7")
    for other in (["--name", "core"], ["--image-version", "8"], ["--image-version", ""]):
        assert refused("a.cfs", "--key", "k.pub", *other) == "signature-other-name"
    wrong = run("sign", "a.cfs", "--key", key, "--name", "two words")
    assert wrong.status == 2
    assert "printable ASCII" in wrong.err


RECIPE = '[image]\nname = "app"\nversion = "3"\n[nodes.f]\nkind = "file"\ntarget = "/f"\ncontent = "x"\n'


def test_a_recipe_stands_for_what_was_built_and_signing_builds_nothing(lab, run, files, key):
    Path("app.toml").write_text(RECIPE)
    assert run("build", "-q", "app.toml").status == 0
    before = files(lab.store)
    signed = run("sign", "app.toml", "--key", key, "--json")
    assert signed.status == 0, signed.err
    assert (signed.json["name"], signed.json["image_version"]) == ("app", "3")
    assert signed.json["file"] == "out/app-3.cfs.dsse"
    assert files(lab.store) == before
    for image in ("app.toml", "app-3", "out/app-3.cfs"):
        assert run("verify", image, "--key", "k.pub").status == 0, image


def test_a_key_that_is_elsewhere_signs_exported_bytes(lab, run, image, key):
    exported = run("sign", "a.cfs", "--export", "bytes")
    assert exported.status == 0
    command = next(line for line in exported.err.splitlines() if "Ed25519" in line).split()[1:]
    filled = [{"KEY": "k.key", "SIGNATURE": "made"}.get(word, word) for word in command]
    subprocess.run(filled, check=True, capture_output=True)
    attached = run("sign", "a.cfs", "--attach", "made", "--public-key", "k.pub")
    assert attached.status == 0, attached.err
    there = Path("a.cfs.dsse").read_bytes()
    Path("a.cfs.dsse").unlink()
    run("sign", "a.cfs", "--key", key)
    assert Path("a.cfs.dsse").read_bytes() == there


def test_an_attached_signature_of_something_else_changes_nothing(lab, run, image, key):
    run("sign", "a.cfs", "--key", key)
    before = Path("a.cfs.dsse").read_bytes()
    Path("made").write_bytes(bytes(64))
    wrong = run("sign", "a.cfs", "--attach", "made", "--public-key", "k.pub")
    assert wrong.status == 5
    assert Path("a.cfs.dsse").read_bytes() == before


def test_a_command_signs_what_it_gets(lab, run, image, key):
    Path("signer.py").write_text(
        "import subprocess, sys\n"
        "open('bytes', 'wb').write(sys.stdin.buffer.read())\n"
        "subprocess.run(['openssl', 'pkeyutl', '-sign', '-rawin', '-inkey', 'k.key', '-in', 'bytes'], check=True)\n"
    )
    hook = f"{sys.executable} signer.py"
    signed = run("sign", "a.cfs", "--with", hook, "--public-key", "k.pub")
    assert signed.status == 0, signed.err
    assert run("verify", "a.cfs", "--key", "k.pub").status == 0


@pytest.mark.parametrize(
    ("hook", "status", "said"),
    [
        ("false", 1, "made no signature"),
        ("/no/such", 2, "cannot be run"),
        ("true", 5, "not a signature"),
        ("", 2, "cannot be run"),
        ("'", 2, "No closing quotation"),
        ("cat /dev/zero", 1, "more than a signature"),
    ],
)
@pytest.mark.usefixtures("image", "key")
def test_a_command_that_does_not_sign_is_an_error(run, hook, status, said):
    failed = run("sign", "a.cfs", f"--with={hook}", "--public-key", "k.pub")
    assert failed.status == status
    assert said in failed.err
    assert not Path("a.cfs.dsse").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--key", "k.key", "--export", "x"],
        ["--attach", "k.pub"],
        ["--key", "k.key", "--public-key", "k.pub"],
        ["--key", "k.key", "--passphrase-file", "k.key", "--export", "x"],
        ["--export", "x", "--passphrase-fd", "0"],
        ["--export", "x", "--output", "y"],
        ["--fsverity", "k.pub", "--key", "k.key", "--key", "k.key"],
        ["--fsverity", "k.pub", "--key", "k.key", "--name", "x"],
        ["--fsverity", "k.pub", "--key", "k.key", "--image-version", ""],
        ["--fsverity", "k.pub", "--attach", "k.pub", "--public-key", "k.pub"],
        ["--fsverity", "k.pub", "--export", "x", "--output", "y"],
        ["--key", "k.pub"],
        ["--key", "missing"],
    ],
)
def test_wrong_combinations_are_refused(lab, run, files, image, key, *, arguments):
    before = files(".")
    assert run("sign", "a.cfs", *arguments).status == 2
    assert files(".") == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--threshold", "2"],
        ["--signature", "k.pub"],
        ["--key", "k.key"],
        ["--name", "a"],
        ["--image-version", "1"],
    ],
)
def test_verify_needs_public_keys(lab, run, image, key, arguments):
    assert run("verify", "a.cfs", *arguments).status == 2


def test_a_passphrase_comes_from_a_file_or_a_descriptor(lab, run, image):
    Path("secret").write_text("open sesame\n")
    Path("secret").chmod(0o600)
    assert run("key", "new", "k", "--passphrase-file", "secret").status == 0
    assert run("sign", "a.cfs", "--key", "k.key", "--passphrase-file", "secret").status == 0
    reader, writer = os.pipe()
    os.write(writer, b"open sesame")
    os.close(writer)
    assert run("key", "show", "k.key", "--passphrase-fd", reader).status == 0
    os.close(reader)
    Path("secret").write_text("wrong")
    wrong = run("sign", "a.cfs", "--key", "k.key", "--passphrase-file", "secret")
    assert wrong.status == 2
    assert "does not open" in wrong.err
    Path("secret").chmod(0o644)
    assert "others can read" in run("sign", "a.cfs", "--key", "k.key", "--passphrase-file", "secret").err


def test_without_a_terminal_a_missing_passphrase_is_an_error(lab, run, image, monkeypatch):
    Path("secret").write_text("x")
    Path("secret").chmod(0o600)
    run("key", "new", "k", "--passphrase-file", "secret")
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        failed = run("sign", "a.cfs", "--key", "k.key")
    assert failed.status == 2
    assert "--passphrase-fd" in failed.err


def test_a_key_is_never_replaced(lab, run, key):
    before = key.read_bytes()
    again = run("key", "new", "k")
    assert again.status == 2
    assert "k.key is there already" in again.err
    assert key.read_bytes() == before


def test_a_key_that_cannot_be_written_is_told(lab, run):
    failed = run("key", "new", "no/such/k")
    assert failed.status == 7
    assert "No such file" in failed.err


def test_the_private_key_is_in_no_file_but_its_own(lab, run, files, key):
    Path("app.toml").write_text(RECIPE)
    assert run("build", "-q", "app.toml").status == 0
    assert run("sign", "app.toml", "--key", key).status == 0
    assert run("sign", "app.toml", "--export", "bytes").status == 0
    line = key.read_bytes().splitlines()[1]
    # The last 32 bytes of the DER are the key itself.
    for secret in (line, base64.b64decode(line)[-32:]):
        holders = [path.name for path, data in files(lab.directory.parent).items() if secret in data]
        assert holders == ([key.name] if secret == line else [])


def test_a_process_that_signs_leaves_no_core_and_cannot_be_looked_into(lab, image, key):
    program = (
        "import sys, ctypes\n"
        "from cfsbuild.cli.main import main\n"
        "status = main(['sign', 'a.cfs', '--key', 'k.key'])\n"
        "sys.exit(status or ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
    )
    # The last call asks the kernel (PR_GET_DUMPABLE): no.
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_json_documents_have_a_version(lab, run, image):
    made = run("key", "new", "k", "--json").json
    assert made["version"] == 1
    assert made == {**made, "algorithm": "ed25519", "private": "k.key", "public": "k.pub"}
    assert run("key", "show", "k.pub", "--json").json["id"] == made["id"]


def test_one_more_signature_is_added_however_the_image_is_named(lab, run, key):
    run("key", "new", "other")
    Path("app.toml").write_text(RECIPE)
    assert run("build", "-q", "app.toml").status == 0
    assert run("sign", "app.toml", "--key", key).status == 0
    assert run("sign", "app-3", "--key", "other.key").status == 0
    both = run(
        "verify", "out/app-3.cfs", "--key", "k.pub", "--key", "other.pub", "--threshold", "2", "--json"
    )
    assert both.status == 0
    assert (both.json["signed_name"], both.json["signed_version"]) == ("app", "3")


def test_a_signature_of_a_sha512_image_is_checked_by_its_own_algorithm(lab, run, key):
    Path("app.toml").write_text(RECIPE.replace("[nodes", 'digest = "sha512"\n[nodes'))
    store = ["--store", "large"]
    assert run("store", "init", "large", "--digest", "sha512").status == 0
    assert run(*store, "build", "-q", "app.toml").status == 0
    # No file of this image has an object: the file alone does not tell which algorithm its store uses.
    assert run(*store, "sign", "app.toml", "--key", key).status == 0
    for image in ("app.toml", "out/app-3.cfs"):
        assert run(*store, "verify", image, "--key", "k.pub").status == 0, image


def test_what_is_no_regular_file_is_refused_and_not_waited_for(lab, run, refused, image, key):
    os.mkfifo("pipe")
    assert refused("a.cfs", "--key", "k.pub", "--signature", "pipe") == "malformed"
    assert run("sign", "a.cfs", "--attach", "pipe", "--public-key", "k.pub").status == 1
    assert run("sign", "a.cfs", "--key", key, "--fsverity", "pipe").status == 1
    assert run("sign", "a.cfs", "--key", key, "--output", "/dev/null").status == 0
    Path("empty").touch()
    assert run("sign", "a.cfs", "--key", key, "--output", "empty").status == 0
    assert Path("empty").stat().st_size > 0


def test_a_dump_has_no_digest_to_sign(lab, run, key):
    Path("a.dump").write_bytes(lab.dump())
    run("key", "new", "r", "--algorithm", "rsa2048")
    for options in (["--key", key], ["--key", "r.key", "--fsverity", "r.pub"]):
        failed = run("sign", "a.dump", *options)
        assert failed.status == 1
        assert "is a dump" in failed.err
    assert not Path("a.dump.p7s").exists()


@pytest.mark.parametrize("name", [".", "/", "..", ""])
def test_a_key_needs_a_name(lab, run, name):
    failed = run("key", "new", name)
    assert failed.status == 2
    assert "no name for a key" in failed.err


def test_passphrases_that_no_key_can_have_are_refused(lab, run):
    Path("secret").write_bytes(b"x" * 1024)
    Path("secret").chmod(0o600)
    assert run("key", "new", "k", "--passphrase-file", "secret").status == 2
    assert run("key", "new", "k", "--passphrase-fd", 2**32).status == 2
    both = run("key", "new", "k", "--passphrase-fd", 0, "--passphrase-file", "secret")
    assert "--passphrase-fd and --passphrase-file are given" in both.err
    assert run("key", "new", "k", "--passphrase-fd", 999).status == 2
    Path("secret").write_bytes(b"x" * 1023)
    assert run("key", "new", "k", "--passphrase-file", "secret").status == 0


def test_a_key_of_the_wrong_kind_asks_no_signer(lab, run, image):
    run("key", "new", "r", "--algorithm", "rsa2048")
    assert run("sign", "a.cfs", "--with", "touch sent", "--public-key", "r.pub").status == 2
    assert not Path("sent").exists()


def test_links_in_a_circle_are_an_error(lab, run, image):
    Path("loop").symlink_to("loop")
    failed = run("sign", "a.cfs", "--export", "loop")
    assert failed.status == 7
    assert "loop cannot be written" in failed.err


def test_the_kinds_of_keys_that_are_offered_are_those_that_there_are():
    assert list(ALGORITHMS) == [algorithm.value for algorithm in KeyAlgorithm]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sign", "a.cfs", "--key", "k.key", "--name", "edge"], "as edge: a.cfs.dsse"),
        (["sign", "a.cfs", "--with", "touch sent", "--public-key", "k.pub"], "as a: a.cfs.dsse"),
        (["sign", "a.cfs", "--export", "bytes"], "would write the bytes to sign: bytes"),
        (["key", "new", "other"], "would make a key of kind ed25519: other.key, other.pub"),
    ],
)
@pytest.mark.usefixtures("image", "key")
def test_a_dry_run_says_what_would_be_done_and_writes_nothing(lab, run, files, *, arguments, said):
    before = files(lab.directory.parent)
    told = run(*arguments, "-n")
    assert told.status == 0, told.err
    assert said in told.text
    assert run(*arguments, "-n", "--json").json["dry_run"] is True
    assert files(lab.directory.parent) == before


def test_a_dry_run_needs_no_passphrase_and_finds_what_would_be_refused(lab, run, image):
    Path("secret").write_text("x")
    Path("secret").chmod(0o600)
    run("key", "new", "k", "--passphrase-file", "secret")
    assert run("sign", "a.cfs", "--key", "k.key", "-n").status == 0
    assert run("sign", "a.cfs", "--key", "k.key", "-n", "--name", "two words").status == 2
    assert run("key", "new", "k", "-n").status == 2
    assert run("sign", "missing.cfs", "--key", "k.key", "-n").status == 2
    run("key", "new", "r", "--algorithm", "rsa2048")
    assert run("sign", "a.cfs", "--with", "true", "--public-key", "r.pub", "-n").status == 2


def test_a_dry_run_tells_whose_signatures_stay(lab, run, image, key):
    identity = run("key", "show", "k.pub").text.split()[0]
    run("sign", "a.cfs", "--key", key)
    assert run("sign", "a.cfs", "--key", key, "-n", "--json").json["keys"] == [identity]
    other = run("sign", "a.cfs", "--key", key, "-n", "--json", "--name", "other")
    assert other.json["keys"] == []


def test_a_p256_signature_of_two_numbers_is_attached_as_der(lab, run, image):
    run("key", "new", "k", "--algorithm", "p256")
    run("sign", "a.cfs", "--export", "bytes")
    made = sign(read_private_key(Path("k.key"), bytes), Path("bytes").read_bytes())
    numbers = utils.decode_dss_signature(made)
    Path("made").write_bytes(b"".join(number.to_bytes(32, "big") for number in numbers))
    assert run("sign", "a.cfs", "--attach", "made", "--public-key", "k.pub").status == 0
    assert run("verify", "a.cfs", "--key", "k.pub").status == 0
