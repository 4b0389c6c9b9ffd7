"""mount --bundle and verify BUNDLE: what is refused, why, and that nothing is mounted then."""

import json
import os
import re
import subprocess
from pathlib import Path

import edge
import pytest

from cfsbuild.deploy.kernel_features import has_feature

RECIPE = (
    edge.IMAGE
    + """\
[nodes.etc]
kind = "dir"
target = "/etc"
[nodes.var]
kind = "dir"
target = "/var"
[targets.bundle]
generation = 3
sign = ["k.key"]
not_after = "2030-01-01"
"""
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def bundle(lab, run):
    assert run("key", "new", "k").status == 0
    assert run("key", "new", "other").status == 0
    Path("edge.toml").write_text(RECIPE)
    assert run("build", "edge.toml").status == 0
    Path("root").mkdir()
    Path("disk").symlink_to(lab.store)
    return Path("out/edge-1.bundle")


@pytest.fixture
def root(tmp_path):
    yield Path("root")
    subprocess.run(["umount", "-R", "-l", "root"], check=False, capture_output=True)


def refused(run, *arguments):
    told = run("mount", "--base", "disk", *arguments, "root")
    assert told.status == 5, told.err
    machine = run("mount", "--json", "--base", "disk", *arguments, "root")
    assert not os.path.ismount("root")
    return json.loads(machine.err)["error"]["reason"]


def test_a_bundle_is_shown_only_to_who_names_a_key(bundle, run):
    told = run("verify", bundle, "--key", "k.pub")
    assert told.status == 0
    assert "  generation  3" in told.lines
    assert "  not after   2030-01-02 00:00:00 UTC" in told.lines
    assert run("verify", bundle, "--key", "k.pub", "--json").json["bundle"]["generation"] == 3
    assert run("verify", bundle).status == 2
    assert run("verify", bundle, "--key", "other.pub").status == 5
    assert run("verify", bundle, "--key", "k.pub", "--name", "else").status == 5


def test_each_refusal_has_a_reason_of_its_own_and_nothing_is_mounted(bundle, run, root):
    good = bundle.read_bytes()
    assert refused(run, "--bundle", bundle, "--key", "other.pub") == "signature-missing"
    assert refused(run, "--bundle", bundle, "--key", "k.pub", "--least-generation", "4") == "rollback"
    assert refused(run, "--bundle", bundle, "--key", "k.pub", "--name", "x") == "signature-other-name"
    bundle.write_bytes(good.replace(b'"sig":"', b'"sig":"AAAA'))
    assert refused(run, "--bundle", bundle, "--key", "k.pub") == "signature-invalid"
    bundle.write_bytes(good[:-9])
    assert refused(run, "--bundle", bundle, "--key", "k.pub") == "malformed"
    bundle.write_bytes(b"")
    assert refused(run, "--bundle", bundle, "--key", "k.pub") == "malformed"
    bundle.write_bytes(good)
    if not has_feature("fs-verity"):
        assert refused(run, "--bundle", bundle, "--key", "k.pub") == "kernel-feature"


def test_without_enforcement_one_has_to_say_so_and_is_told_what_is_lost(bundle, run, root):
    if has_feature("fs-verity"):
        pytest.skip("this kernel has fs-verity")
    told = run("mount", "--bundle", bundle, "--key", "k.pub", "--base", "disk", "root")
    assert "can change every file unseen" in told.err
    assert "--allow-insecure" in told.err
    told = run("mount", "--allow-insecure", "--bundle", bundle, "--key", "k.pub", "--base", "disk", "root")
    assert told.status == 0, told.err
    assert "generation 3, signed by" in told.err
    assert "the kernel does not check contents" in told.err
    assert Path("root/motd").read_text() == "x" * 100


def test_even_then_the_image_must_be_the_one_that_was_signed(bundle, run, root, lab):
    digest = run("build", "edge.toml").text.split()[0]
    image = lab.store / "objects" / digest[:2] / digest[2:]
    data = bytearray(image.read_bytes())
    data[2000] ^= 1
    image.unlink()
    image.write_bytes(data)
    arguments = ("--allow-insecure", "--bundle", bundle, "--key", "k.pub")
    if not has_feature("fs-verity"):
        assert refused(run, *arguments) == "image-digest"
    image.write_bytes(data[:-4096])
    assert refused(run, *arguments) == "image-size"
    image.unlink()
    assert refused(run, *arguments) == "image-missing"


def test_an_expired_bundle_is_refused(bundle, run, root):
    Path("edge.toml").write_text(RECIPE.replace("2030", "2020"))
    assert run("build", "edge.toml").status == 0
    assert refused(run, "--bundle", bundle, "--key", "k.pub") == "expired"


def test_a_bundle_that_lasts_longer_than_calendars_is_shown(bundle, run):
    text = Path("out/edge-1.bundle.json").read_text()
    Path("edge.bundle.json").write_text(re.sub('"not_after":[0-9]+', f'"not_after":{1 << 53}', text))
    assert run("sign", "edge.bundle.json", "--key", "k.key").status == 0
    told = run("verify", "edge.bundle", "--key", "k.pub")
    assert told.status == 0, told.err
    assert f"  not after   {1 << 53} seconds since 1970" in told.lines


def test_an_insecure_bundle_needs_the_word_at_both_ends(bundle, run, root):
    Path("edge.toml").write_text(RECIPE + 'verity = "off"\n')
    assert run("build", "edge.toml").status == 2
    Path("edge.toml").write_text(RECIPE + 'verity = "off"\nallow_insecure = true\n')
    assert run("build", "edge.toml").status == 0
    assert refused(run, "--bundle", bundle, "--key", "k.pub") == "insecure"
    told = run("mount", "--allow-insecure", "--bundle", bundle, "--key", "k.pub", "--base", "disk", "root")
    assert told.status == 0, told.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--bundle", "out/edge-1.bundle"),
        ("--bundle", "out/edge-1.bundle", "a.cfs", "root"),
        ("--bundle", "out/edge-1.bundle", "--verity", "off", "root"),
        ("--bundle", "out/edge-1.bundle", "root"),
        ("--key", "k.pub", "a.cfs", "root"),
        ("root",),
        (),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(bundle, run, arguments):
    assert run("mount", *arguments).status == 2


def test_dry_run_says_what_would_be_mounted(bundle, run):
    told = run("mount", "-n", "--bundle", bundle, "--key", "k.pub", "--base", "disk", "root")
    assert told.status == 0
    assert told.json["verity"] == "require"
    assert not os.path.ismount("root")


def test_who_signs_elsewhere_signs_the_document_and_others_add_to_it(bundle, run):
    bundle.unlink()
    told = run("sign", "out/edge-1.bundle.json", "--key", "other.key")
    assert told.status == 0, told.err
    assert told.text == "out/edge-1.bundle\n"
    assert run("verify", bundle, "--key", "k.pub").status == 5
    assert run("sign", "out/edge-1.bundle.json", "--export", "to-sign").status == 0
    assert Path("to-sign").read_bytes().startswith(b"DSSEv1 38 application/vnd.cfsbuild.mount.v1+json ")
    assert run("sign", bundle, "--key", "k.key", "--json").json["keys"] == sorted(
        run("key", "show", name).text.split()[0] for name in ("k.pub", "other.pub")
    )
    both = ("--key", "k.pub", "--key", "other.pub", "--threshold", "2")
    assert run("verify", bundle, *both).status == 0
    assert run("sign", bundle, "--key", "k.key", "--name", "x").status == 2


def test_a_revoked_key_does_not_count_whoever_trusts_it(bundle, run, root):
    identity = run("key", "show", "k.pub").text.split()[0]
    for revoked in ("k.pub", identity):
        arguments = ("--bundle", bundle, "--key", "k.pub", "--key", "other.pub", "--revoked", revoked)
        assert refused(run, *arguments) == "key-revoked"
        assert run("verify", bundle, "--key", "k.pub", "--revoked", revoked).status == 5
    assert run("sign", bundle, "--key", "other.key").status == 0
    assert run("verify", bundle, "--key", "k.pub", "--key", "other.pub", "--revoked", identity).status == 0


def test_several_keys_must_have_signed_where_that_is_asked_for(bundle, run, root):
    both = ("--key", "k.pub", "--key", "other.pub", "--threshold", "2")
    assert refused(run, "--bundle", bundle, *both) == "signature-threshold"
    assert run("verify", bundle, *both).status == 5


def test_without_options_the_machine_s_own_keys_count_and_its_revoked_ones_always(
    bundle, run, root, monkeypatch
):
    for name in ("TRUSTED_KEYS", "REVOKED_KEYS"):
        Path(name).mkdir()
        monkeypatch.setattr(f"cfsbuild.cli.bundle_mounting.{name}", Path(name))
    arguments = ("mount", "-n", "--base", "disk", "--bundle", bundle, "root")
    assert run(*arguments).status == 2
    Path("TRUSTED_KEYS/k.pub").write_bytes(Path("k.pub").read_bytes())
    assert run(*arguments).status == 0
    Path("REVOKED_KEYS/old.pub").write_bytes(Path("k.pub").read_bytes())
    assert refused(run, "--bundle", bundle) == "key-revoked"
    assert refused(run, "--bundle", bundle, "--key", "k.pub") == "key-revoked"


def test_an_insecure_bundle_is_shown_with_a_warning(bundle, run):
    Path("edge.toml").write_text(RECIPE + 'verity = "off"\nallow_insecure = true\n')
    assert run("build", "edge.toml").status == 0
    told = run("verify", bundle, "--key", "k.pub")
    assert told.status == 0
    assert "  warning     the kernel is not asked to check what is read" in told.lines


@pytest.mark.parametrize("name", ["x.bundle", "x.bundle.json"])
def test_what_is_no_bundle_is_not_signed_as_one(run, bundle, name):
    Path(name).write_text("{}")
    assert run("sign", name, "--key", "k.key").status == 5


def test_a_build_opens_keys_with_the_passphrase_that_it_is_given(lab, run):
    for name, text in (("pass", "open sesame\n"), ("wrong", "no\n")):
        Path(name).write_text(text)
        Path(name).chmod(0o600)
    assert run("key", "new", "k", "--passphrase-file", "pass").status == 0
    Path("edge.toml").write_text(RECIPE)
    told = run("build", "edge.toml")
    assert told.status == 2
    assert "--passphrase-file" in told.err
    assert run("build", "edge.toml", "--passphrase-file", "wrong").status == 2
    assert run("build", "--check", "edge.toml", "--passphrase-file", "pass").status == 0
    assert run("verify", "out/edge-1.bundle", "--key", "k.pub").status == 0


def test_umount_undoes_what_a_bundle_mounted(bundle, run, root):
    Path("edge.toml").write_text(RECIPE + '[targets.bundle.state]\netc = "transient"\nvar = "persistent"\n')
    assert run("build", "edge.toml").status == 0
    insecure = () if has_feature("fs-verity") else ("--allow-insecure",)
    told = run("mount", *insecure, "--bundle", bundle, "--key", "k.pub", "--base", "disk", "root")
    assert told.status == 0, told.err
    Path("root/etc/new").touch()
    assert os.path.ismount("root/var")
    assert run("umount", "root").status == 0
    assert not os.path.ismount("root")
    assert list(Path("root").iterdir()) == []
