"""The target `bundle`: signed when it is made, signed again without building, and readable by other programs."""

import json
import shutil
import subprocess

import msgspec
import pytest

from cfsbuild.build.forecast import forecast
from cfsbuild.build.pipeline import Options, build, load_plans, make_request
from cfsbuild.errors import RecipeError, UsageError
from cfsbuild.targets.renderings import unit_name
from cfsbuild.trust import dsse
from cfsbuild.trust.bundle import PAYLOAD_TYPE, decode_bundle, verify_bundle
from cfsbuild.trust.key_files import read_public_key, write_key_pair
from cfsbuild.trust.keys import KeyAlgorithm, generate

RECIPE = """\
[image]
name = "edge"
version = "1"
epoch = 1000
{image}
[nodes.file]
kind = "file"
target = "/etc/motd"
content = "{content}"
[targets.bundle]
generation = 3
{target}
"""


@pytest.fixture
def key(tmp_path):
    return write_key_pair(tmp_path / "k", generate(KeyAlgorithm.ED25519))


def make(tmp_path, *, target='sign = ["k.key"]', content="x" * 100, image="", **options):
    recipe = tmp_path / "t.toml"
    recipe.write_text(RECIPE.format(target=target, content=content, image=image))
    request = make_request(recipe, store=tmp_path / "store", output=tmp_path / "out")
    (result,) = build(request, Options(**options), environ={})
    return result, tmp_path / "out"


def outcomes(result):
    return {job.job: job.outcome for job in result.jobs}


def test_the_bundle_names_the_image_that_was_built_and_is_signed(tmp_path, key):
    result, out = make(tmp_path)
    opened = verify_bundle((out / "edge-1.bundle").read_bytes(), [read_public_key(key[1])])
    assert opened.bundle.image.digest == f"fsverity-sha256-12:{result.digest}"
    assert opened.bundle.image.size == (out / "edge-1.cfs").stat().st_size
    assert (opened.bundle.name, opened.bundle.version, opened.bundle.generation) == ("edge", "1", 3)
    assert decode_bundle((out / "edge-1.bundle.json").read_bytes()) == opened.bundle
    assert [report.target for report in result.images] == ["image", "bundle"]
    assert result.images[1].files[0].endswith("edge-1.bundle")


def test_the_generation_is_required(tmp_path):
    recipe = tmp_path / "t.toml"
    recipe.write_text(RECIPE.format(target="", content="x", image="").replace("generation = 3", ""))
    with pytest.raises(RecipeError, match="generation") as caught:
        build(make_request(recipe, store=tmp_path / "s", output=tmp_path / "o"), Options(), environ={})
    assert str(caught.value.origin).startswith(f"{recipe}:")


def test_nothing_runs_again_when_nothing_changed_and_the_image_is_not_made_again_for_a_new_bundle(
    tmp_path, key
):
    make(tmp_path)
    again, _ = make(tmp_path)
    assert again.ran == 0
    changed, _ = make(tmp_path, target='sign = ["k.key"]\nnot_after = "2030-01-01"')
    assert outcomes(changed) == {"file": "cached", "targets.image": "cached", "targets.bundle": "ran"}


def test_a_key_that_was_replaced_signs_again_and_nothing_else_runs(tmp_path, key):
    make(tmp_path)
    for path in key:
        path.unlink()
    _, public = write_key_pair(tmp_path / "k", generate(KeyAlgorithm.ED25519))
    result, out = make(tmp_path)
    assert outcomes(result) == {"file": "cached", "targets.image": "cached", "targets.bundle": "ran"}
    assert verify_bundle((out / "edge-1.bundle").read_bytes(), [read_public_key(public)])


def test_signatures_that_others_added_stay_as_long_as_the_bundle_says_the_same(tmp_path, key):
    _, out = make(tmp_path)
    other = generate(KeyAlgorithm.P256)
    path = out / "edge-1.bundle"
    payload = (out / "edge-1.bundle.json").read_bytes()
    path.write_bytes(dsse.merge(path.read_bytes(), dsse.sign(PAYLOAD_TYPE, payload, other)))
    make(tmp_path)
    assert len(dsse.decode(path.read_bytes()).signatures) == 2
    make(tmp_path, content="y" * 100)
    assert len(dsse.decode(path.read_bytes()).signatures) == 1


def test_what_lies_there_and_is_no_envelope_is_replaced(tmp_path, key):
    _, out = make(tmp_path)
    (out / "edge-1.bundle").write_text("nonsense")
    make(tmp_path)
    assert verify_bundle((out / "edge-1.bundle").read_bytes(), [read_public_key(key[1])])


def test_without_keys_there_is_a_document_to_sign(tmp_path):
    _, out = make(tmp_path, target="")
    assert (out / "edge-1.bundle.json").exists()
    assert not (out / "edge-1.bundle").exists()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ('sign = ["none.key"]', "there is no file none.key"),
        ('verity = "off"', "does not check what is read"),
        ('secrets = { a = "t.toml" }', "cannot have secrets"),
        ('not_after = "tomorrow"', "not_after is no time"),
        ('not_after = "2030-01-01T00:00:00"', "not_after is no time"),
        ("objects = []", "objects"),
        ('upper = { directory = "a", work = "b" }', "above the whole image"),
        ('allow_insecure = true\nstate = {}\nupper = { directory = "a", work = "b" }', "nothing left"),
        ('not_after = "9999-12-31"', "not_after is no time"),
        ('objects = ["../x"]', "objects"),
        ('where = "/a b"', "where"),
        ('[targets.bundle.state]\netc = "yes"', "etc"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(tmp_path, target, words):
    with pytest.raises(RecipeError) as caught:
        make(tmp_path, target=target)
    (problem,) = caught.value.problems()
    assert words in problem.brief + problem.details
    assert problem.origin.line
    assert not (tmp_path / "store").exists()


def test_a_bundle_that_cannot_be_written_is_an_error_and_the_image_is_there(tmp_path, key):
    with pytest.raises(UsageError, match="cannot be a mount bundle"):
        make(tmp_path, target='sign = ["k.key"]\nobjects = ["a", "a"]')


def test_a_key_with_a_passphrase_is_asked_for_or_refused(tmp_path):
    write_key_pair(tmp_path / "k", generate(KeyAlgorithm.ED25519), b"open")
    with pytest.raises(UsageError) as caught:
        make(tmp_path)
    assert caught.value.reason == "passphrase"
    make(tmp_path, passphrase=lambda path: b"open" if path.name == "k.key" else b"")


def test_an_expiry_date_is_its_last_second(tmp_path):
    _, out = make(tmp_path, target='not_after = "2030-01-01"')
    assert json.loads((out / "edge-1.bundle.json").read_bytes())["not_after"] == 1893542400
    _, out = make(tmp_path, target='not_after = "2030-01-01T01:00:00+01:00"')
    assert json.loads((out / "edge-1.bundle.json").read_bytes())["not_after"] == 1893456000


def test_an_image_of_format_0_has_no_kernel_argument(tmp_path):
    _, out = make(tmp_path, target="", image="format = 0")
    assert not (out / "edge-1.cmdline").exists()
    result, out = make(tmp_path, target="", image="")
    assert (out / "edge-1.cmdline").read_text() == f"composefs.digest=v1-sha256-12:{result.digest}\n"


def test_files_that_a_target_makes_no_more_are_removed_unless_somebody_changed_them(tmp_path, key):
    _, out = make(tmp_path)
    (out / "edge-1.mount").write_text("mine")
    (out / "other").write_text("nobody's")
    make(tmp_path, target='render = ["cmdline"]')
    left = sorted(path.name.removeprefix("edge-1") for path in out.iterdir())
    assert left == [".bundle.json", ".cfs", ".cmdline", ".dump", ".manifest.json", ".mount", "other"]


def test_the_mount_spec_says_the_calls_and_the_commands(tmp_path):
    result, out = make(tmp_path, target='base = "/srv"\nwhere = "/run/edge"')
    document = json.loads((out / "edge-1.mount.json").read_bytes())
    digest = result.digest
    assert document["spec"]["image"] == f"/srv/objects/{digest[:2]}/{digest[2:]}"
    assert document["spec"]["digest"] == digest
    assert [call["call"] for call in document["calls"]].count("move_mount") == 2
    assert {
        "call": "fsconfig",
        "command": "FSCONFIG_SET_STRING",
        "key": "verity",
        "value": "require",
        "optional": False,
    } in document["calls"]
    assert document["commands"][0] == ["fsverity", "measure", document["spec"]["image"]]
    assert "verity=require" in document["commands"][3][4]


def test_systemd_accepts_the_mount_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    _, out = make(tmp_path, target='where = "/run/edge-1"')
    text = (out / "edge-1.mount").read_text()
    name = subprocess.run(
        ["systemd-escape", "--path", "--suffix=mount", "/run/edge-1"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert f"# Install as {name}." in text
    unit = tmp_path / name
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert "Unknown" not in done.stderr
    assert "Failed" not in done.stderr


@pytest.mark.parametrize("path", ["/", "/a", "/a-b/c", "/.a/b.c", "/run/x_y:z", "/a@b+c"])
def test_units_are_named_as_systemd_names_them(path):
    if shutil.which("systemd-escape") is None:
        pytest.skip("systemd is not installed")
    done = subprocess.run(
        ["systemd-escape", "--path", "--suffix=mount", path], capture_output=True, text=True, check=True
    )
    assert unit_name(path) == done.stdout.strip()


def test_the_initramfs_hook_is_a_shell_script_that_holds_the_digest(tmp_path):
    result, out = make(tmp_path, target="")
    hook = out / "edge-1.initramfs-hook"
    assert result.digest in hook.read_text()
    for shell in ("dash", "bash"):
        if shutil.which(shell):
            subprocess.run([shell, "-n", hook], check=True)
    boot = hook.read_text().split("<<'END'\n")[1].split("END\n")[0]
    subprocess.run(["sh", "-n"], input=boot.encode(), check=True)


def test_a_private_key_is_in_no_state_of_the_build(tmp_path, key):
    make(tmp_path)
    secret = key[0].read_bytes().splitlines()[1]
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != key[0]:
            assert secret not in path.read_bytes(), path


def test_the_image_target_has_to_be_one(tmp_path):
    with pytest.raises(RecipeError) as caught:
        make(tmp_path, target='[targets.image]\nkind = "bundle"\ngeneration = 1')
    assert "is about an image" in caught.value.problems()[0].brief


def test_the_forecast_knows_what_a_new_image_means_for_the_bundle(tmp_path, key):
    make(tmp_path)
    request = make_request(tmp_path / "t.toml", store=tmp_path / "store", output=tmp_path / "out")
    states = {one.job: one.state for one in forecast(load_plans(request, environ={})[0], request)}
    assert states == {"file": "up-to-date", "targets.image": "up-to-date", "targets.bundle": "up-to-date"}
    text = (tmp_path / "t.toml").read_text()
    (tmp_path / "t.toml").write_text(text.replace("xxx", "yyy"))
    states = {one.job: one.state for one in forecast(load_plans(request, environ={})[0], request)}
    assert states == {"file": "run", "targets.image": "pending", "targets.bundle": "pending"}
    assert msgspec.structs.asdict(forecast(load_plans(request, environ={})[0], request)[2])["reasons"]
