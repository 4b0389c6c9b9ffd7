"""sign --fsverity, verify --fsverity-certificate: the kernel's PKCS#7 signature, made here or elsewhere."""

import shutil
import subprocess
from pathlib import Path

import pytest

RECIPE = '[image]\nname = "app"\nversion = "3"\n[nodes.f]\nkind = "file"\ntarget = "/f"\ncontent = "x"\n'


@pytest.fixture
def image(lab):
    return lab.image()


@pytest.fixture(params=["rsa2048", "p256"])
def kind(request):
    return request.param


@pytest.fixture
def certify(run):
    def make(name, kind="rsa2048", subject="/CN=x"):
        assert run("key", "new", name, "--algorithm", kind).status == 0
        subprocess.run(
            [
                "openssl",
                "req",
                "-new",
                "-x509",
                "-key",
                f"{name}.key",
                "-out",
                f"{name}.pem",
                "-subj",
                subject,
            ],
            check=True,
            capture_output=True,
        )
        return run("key", "show", f"{name}.pub").text.split()[0]

    return make


@pytest.fixture
def signer(certify, kind):
    return certify("k", kind)


def follow(text):
    """Run the command that `--export` shows, by the key in k.key; the signature is in the file `made`."""
    line = next(line for line in text.splitlines() if line.startswith("  openssl"))
    words = [{"KEY": "k.key", "SIGNATURE": "made"}.get(word, word) for word in line.split()]
    subprocess.run(words, check=True, capture_output=True)


def test_a_signature_is_made_beside_the_image_and_verifies(lab, run, image, signer):
    made = run("sign", "a.cfs", "--key", "k.key", "--fsverity", "k.pem")
    assert made.status == 0, made.err
    assert made.text == "a.cfs.p7s\n"
    told = run("verify", "a.cfs", "--fsverity-certificate", "k.pem")
    assert told.status == 0, told.err
    assert f"  PKCS#7   by {signer}" in told.lines
    assert (
        run("verify", "a.cfs", "--fsverity-certificate", "k.pem", "--json").json["fsverity_signer"] == signer
    )
    Path("a.cfs.p7s").rename("elsewhere")
    elsewhere = ["--fsverity-signature", "elsewhere"]
    assert run("verify", "a.cfs", "--fsverity-certificate", "k.pem", *elsewhere).status == 0


def test_the_kernels_tool_makes_the_same_file(lab, run, image, certify):
    if shutil.which("fsverity") is None:
        pytest.skip("fsverity is not installed")
    certify("k")
    run("sign", "a.cfs", "--key", "k.key", "--fsverity", "k.pem")
    subprocess.run(["fsverity", "sign", "a.cfs", "theirs", "--key=k.key", "--cert=k.pem"], check=True)
    assert Path("theirs").read_bytes() == Path("a.cfs.p7s").read_bytes()


def test_a_key_that_is_elsewhere_signs_exported_bytes(lab, run, image, signer, kind):
    exported = run("sign", "a.cfs", "--fsverity", "k.pem", "--export", "bytes")
    assert exported.status == 0, exported.err
    digest = run("verify", "a.cfs", "--json").json["digest"]
    assert Path("bytes").read_bytes() == b"FSVerity\x01\x00\x20\x00" + bytes.fromhex(digest)
    follow(exported.err)
    attached = run("sign", "a.cfs", "--fsverity", "k.pem", "--attach", "made", "--json")
    assert attached.status == 0, attached.err
    result = attached.json
    assert result == {**result, "version": 1, "digest": digest, "key": signer, "file": "a.cfs.p7s"}
    there = Path("a.cfs.p7s").read_bytes()
    assert run("verify", "a.cfs", "--fsverity-certificate", "k.pem").status == 0
    run("sign", "a.cfs", "--fsverity", "k.pem", "--key", "k.key")
    if kind == "rsa2048":
        assert Path("a.cfs.p7s").read_bytes() == there


def test_a_sha512_image_is_signed_by_sha512(lab, run, signer):
    Path("app.toml").write_text(RECIPE.replace("[nodes", 'digest = "sha512"\n[nodes'))
    store = ["--store", "large"]
    assert run("store", "init", "large", "--digest", "sha512").status == 0
    assert run(*store, "build", "-q", "app.toml").status == 0
    exported = run(*store, "sign", "app.toml", "--fsverity", "k.pem", "--export", "bytes")
    assert "dgst -sha512" in exported.err
    assert Path("bytes").read_bytes()[:12] == b"FSVerity\x02\x00\x40\x00"
    follow(exported.err)
    assert run(*store, "sign", "app.toml", "--fsverity", "k.pem", "--attach", "made").status == 0
    for image in ("app.toml", "out/app-3.cfs"):
        assert run(*store, "verify", image, "--fsverity-certificate", "k.pem").status == 0, image


def test_what_openssl_finished_is_attached_as_well(lab, run, image, signer):
    run("sign", "a.cfs", "--fsverity", "k.pem", "--export", "bytes")
    smime = ["openssl", "smime", "-sign", "-binary", "-in", "bytes", "-signer", "k.pem", "-inkey", "k.key"]
    smime += ["-nocerts", "-outform", "DER", "-out", "made"]
    subprocess.run([*smime, "-noattr"], check=True)
    assert run("sign", "a.cfs", "--fsverity", "k.pem", "--attach", "made").status == 0
    before = Path("a.cfs.p7s").read_bytes()
    assert run("verify", "a.cfs", "--fsverity-certificate", "k.pem").status == 0
    subprocess.run(smime, check=True)
    wrong = run("sign", "a.cfs", "--fsverity", "k.pem", "--attach", "made")
    assert wrong.status == 5
    assert "has attributes" in wrong.err
    assert Path("a.cfs.p7s").read_bytes() == before


def test_a_command_signs_what_it_gets(lab, run, image, signer):
    signed = run("sign", "a.cfs", "--fsverity", "k.pem", "--with", "openssl dgst -sha256 -sign k.key")
    assert signed.status == 0, signed.err
    assert run("verify", "a.cfs", "--fsverity-certificate", "k.pem").status == 0
    wrong = run("sign", "a.cfs", "--fsverity", "k.pem", "--with", "openssl dgst -sha1 -sign k.key")
    assert wrong.status == 5


def test_every_refusal_has_its_own_reason(lab, run, refused, image, signer, *, certify, kind):
    certify("other", kind, subject="/CN=other")
    trust = ["--fsverity-certificate", "k.pem"]
    assert refused("a.cfs", *trust) == "signature-missing"
    run("sign", "a.cfs", "--fsverity", "other.pem", "--key", "other.key")
    assert refused("a.cfs", *trust) == "signature-other-signer"
    run("sign", "a.cfs", "--fsverity", "k.pem", "--key", "k.key")
    assert refused("a.cfs", *trust, "--revoked", signer) == "key-revoked"
    assert refused("a.cfs", *trust, "--revoked", "k.pub") == "key-revoked"
    good = Path("a.cfs.p7s").read_bytes()
    Path("a.cfs.p7s").write_bytes(good[:-1])
    assert refused("a.cfs", *trust) == "malformed"
    Path("a.cfs.p7s").write_bytes(b"\x30" * (2 << 20))
    assert refused("a.cfs", *trust) == "malformed"
    Path("a.cfs.p7s").write_bytes(good)
    lab.image(edit=lambda text: text.replace("edge", "evil"))
    assert refused("a.cfs", *trust) == "signature-invalid"


def test_both_signatures_can_be_asked_for_and_each_is_told(lab, run, image, signer):
    run("key", "new", "d")
    both = ["--key", "d.pub", "--fsverity-certificate", "k.pem"]
    reasons = [fault["reason"] for fault in run("verify", "a.cfs", *both, "--json").json["faults"]]
    assert reasons == ["signature-missing", "signature-missing"]
    run("sign", "a.cfs", "--key", "d.key")
    run("sign", "a.cfs", "--fsverity", "k.pem", "--key", "k.key")
    told = run("verify", "a.cfs", *both)
    assert told.status == 0, told.err
    assert [line.split()[0] for line in told.lines[2:5]] == ["signed", "by", "PKCS#7"]


@pytest.mark.parametrize("way", [["--key", "k.key"], ["--export", "bytes"], ["--with", "touch sent"]])
def test_a_dry_run_writes_nothing(lab, run, files, image, certify, *, way):
    identity = certify("k")
    before = files(".")
    told = run("sign", "a.cfs", "--fsverity", "k.pem", *way, "-n")
    assert told.status == 0, told.err
    assert (identity if way[0] != "--export" else "bytes") in told.text
    assert run("sign", "a.cfs", "--fsverity", "k.pem", *way, "-n", "--json").json["dry_run"] is True
    assert files(".") == before


def test_keys_that_no_kernel_knows_are_refused(lab, run, image, certify):
    certify("k", "ed25519")
    for way in (["--key", "k.key"], ["--export", "bytes"], ["--with", "touch sent"]):
        failed = run("sign", "a.cfs", "--fsverity", "k.pem", *way)
        assert failed.status == 2
        assert "ed25519" in failed.err
    assert run("verify", "a.cfs", "--fsverity-certificate", "k.pem").status == 2
    assert not Path("sent").exists()


def test_a_certificate_of_another_key_is_refused(lab, run, image, certify):
    certify("k")
    certify("other")
    assert run("sign", "a.cfs", "--fsverity", "k.pem", "--key", "other.key").status == 2
    assert not Path("a.cfs.p7s").exists()
