import msgspec
import pytest

from cfsbuild.deploy.mount import check_image_digest
from cfsbuild.deploy.sequence import Setting, erofs_mount, overlay_mount, overlay_options
from cfsbuild.deploy.spec import MountSpec, decode, encode
from cfsbuild.errors import InputError, UsageError, VerificationError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.kernel import Measurement

DIGEST = "0123456789abcdef" * 4


def spec(**changes):
    return MountSpec(**{"image": "/i.cfs", "objects": ("/o",), **changes})


def test_a_spec_survives_its_document():
    original = spec(
        digest=DIGEST, verity="require", objects=("/a", "/b,c"), upper="/u", work="/w", read_only=False
    )
    assert decode(encode(original)) == original


def test_the_document_is_canonical():
    assert encode(spec()) == (
        b'{"digest":"","idmap":"","image":"/i.cfs","objects":["/o"],"read_only":true,"upper":"",'
        b'"verity":"try","version":1,"work":""}\n'
    )


@pytest.mark.parametrize(
    "damage",
    [b"", b"[]", b"{}", b'{"image":"i","objects":["o"],"colour":1}', encode(spec()).replace(b":1", b":2")],
)
def test_a_damaged_or_foreign_document_is_refused(damage):
    with pytest.raises(InputError):
        decode(damage)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"objects": ()}, "at least one object directory"),
        ({"objects": ("/o", "/o")}, "listed twice"),
        ({"upper": "/u"}, "go together"),
        ({"work": "/w"}, "go together"),
        ({"digest": "abc"}, "is not an fs-verity digest"),
        ({"digest": DIGEST.upper()}, "lower-case hex"),
    ],
)
def test_what_no_kernel_can_mount_is_refused_early(changes, words):
    with pytest.raises(UsageError, match=words):
        spec(**changes)


def test_the_metadata_mount_looks_for_acls_only_where_there_are_some():
    assert Setting("noacl") in erofs_mount("/f", acl=False).settings
    assert Setting("noacl") not in erofs_mount("/f", acl=True).settings


def test_the_overlay_takes_object_directories_in_order_and_requires_verity_when_asked():
    settings = overlay_mount(spec(objects=("/a", "/b"), verity="require"), "/m").settings
    assert settings[-3:] == (Setting("lowerdir+", "/m"), Setting("datadir+", "/a"), Setting("datadir+", "/b"))
    assert Setting("verity", "require") in settings


def test_verity_that_is_only_tried_may_be_refused_by_the_kernel():
    assert Setting("verity", "require", optional=True) in overlay_mount(spec(verity="try"), "/m").settings
    assert not any(setting.key == "verity" for setting in overlay_mount(spec(verity="off"), "/m").settings)


def test_the_classic_option_string_escapes_what_would_split_it():
    text = overlay_options(spec(objects=("/a:b,c",)), "/m", data_only=True, verity=True)
    assert text == "metacopy=on,redirect_dir=on,lowerdir=/m::/a\\:b\\,c,verity=require"


def test_a_kernel_without_data_only_layers_gets_ordinary_lower_layers():
    text = overlay_options(spec(upper="/u,1", work="/w"), "/m", data_only=False, verity=False)
    assert text == "metacopy=on,redirect_dir=on,lowerdir=/m:/o,upperdir=/u\\,1,workdir=/w"


def test_every_field_of_the_spec_is_described_in_its_docstring():
    text = MountSpec.__doc__
    assert all(
        f"`{field}`" in text
        for field in msgspec.structs.asdict(spec())
        if field not in {"version", "read_only"}
    )


def test_an_image_of_another_digest_than_the_kernel_measures_is_refused(monkeypatch, tmp_path):
    measured = Measurement(Algorithm.SHA256, bytes(32))
    monkeypatch.setattr("cfsbuild.fsverity.kernel.measure", lambda _: measured)
    (tmp_path / "i.cfs").write_bytes(b"")
    with (tmp_path / "i.cfs").open("rb") as file:
        right = MountSpec(image="i.cfs", objects=("/o",), digest="00" * 32, verity="require")
        assert check_image_digest(file.fileno(), right)
        wrong = msgspec.structs.replace(right, digest="11" * 32)
        with pytest.raises(VerificationError, match="wrong fs-verity digest") as caught:
            check_image_digest(file.fileno(), wrong)
    assert caught.value.reason == "image-digest"
