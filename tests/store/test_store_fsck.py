from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import store_driver
from store_driver import object_path

from cfsbuild.errors import StoreError
from cfsbuild.store.contents import encode_contents
from cfsbuild.store.fsck import check_store, repair_store
from cfsbuild.store.fsck_documents import check_documents
from cfsbuild.store.info import store_info
from cfsbuild.store.store import Store


@pytest.fixture
def image(store):
    return store_driver.build(store, "one")


@pytest.fixture
def twin(store, image, tmp_path):
    shutil.copytree(store.path, tmp_path / "twin", symlinks=True)
    with Store.open(tmp_path / "twin") as twin:
        yield twin


def largest(store: Store) -> bytes:
    return max(store.objects.all(), key=lambda digest: store.objects.status(digest).st_size)


def flip(path: Path, position: int = 0, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(mode)


def kinds(report) -> set[str]:
    return {finding.kind for finding in report.findings}


def test_a_good_store_is_clean_and_counted(store, image):
    report = check_store(store, threads=2)
    assert report.findings == ()
    assert (report.objects, report.images, report.references, report.documents) == (5, 1, 1, 4)
    assert report.bytes == sum(store.objects.status(digest).st_size for digest in store.objects.all())


def test_every_damaged_byte_of_an_object_is_found(store):
    with store.transaction() as transaction:
        digest = transaction.add_bytes(bytes(range(64)))
        transaction.commit()
    for position in range(64):
        flip(object_path(store, digest), position, position % 8)
        (finding,) = check_store(store).findings
        assert (finding.kind, finding.object) == ("object-digest", digest.hex())
        flip(object_path(store, digest), position, position % 8)
    assert check_store(store).findings == ()


@pytest.mark.parametrize("change", ["truncate", "extend", "swap", "symlink", "directory", "fifo", "empty"])
def test_a_changed_object_is_found_and_mended(store, image, twin, change):
    path = object_path(store, largest(store))
    path.chmod(0o644)
    data = path.read_bytes()
    if change == "truncate":
        path.write_bytes(data[:-1])
    elif change == "extend":
        path.write_bytes(data + b"\0")
    elif change == "swap":
        shutil.copy(object_path(store, image), path)
    elif change == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
        if change == "symlink":
            path.symlink_to(object_path(twin, largest(twin)))
        elif change == "directory":
            path.mkdir()
        else:
            os.mkfifo(path)
    report = check_store(store)
    assert report.damage >= 1
    assert kinds(report) & {"object-digest", "object-type"}
    mended = repair_store(store, sources=[twin])
    assert mended.damage == 0, mended.findings
    assert check_store(store).findings == ()
    assert path.read_bytes() == data


def test_repair_does_not_take_a_damaged_replacement(store, image, twin):
    victim = largest(store)
    flip(object_path(store, victim))
    flip(object_path(twin, victim), 7)
    report = repair_store(store, sources=[twin])
    finding = next(finding for finding in report.findings if finding.kind == "object-digest")
    assert finding.repaired.startswith("moved to cfsbuild/trash/quarantine-")
    assert not object_path(store, victim).exists()
    assert (store.path / finding.repaired.removeprefix("moved to ")).stat().st_size == 70_000 * 16
    # The image lacks an object now, and that is still damage.
    assert report.damage == 1
    assert kinds(check_store(store)) == {"image-incomplete", "stale"}


def test_after_a_repair_without_replacement_a_build_restores_the_image(store, image):
    flip(object_path(store, largest(store)))
    repair_store(store)
    assert store_driver.build(store, "one") == image
    assert check_store(store).findings == ()


def test_a_missing_object_is_found_and_fetched(store, image, twin):
    object_path(store, largest(store)).unlink()
    assert kinds(check_store(store)) == {"image-incomplete", "stale"}
    assert repair_store(store, sources=[twin]).damage == 0
    assert check_store(store).findings == ()


def test_a_missing_image_is_fetched_with_the_objects_that_it_needs(store, image, twin):
    object_path(store, image).unlink()
    object_path(store, largest(store)).unlink()
    report = check_store(store)
    assert "image-missing" in kinds(report)
    assert repair_store(store, sources=[twin]).damage == 0
    assert check_store(store).findings == ()


def test_a_damaged_image_is_found_and_mended(store, image, twin):
    flip(object_path(store, image), 1500)
    assert {"object-digest", "image-damaged"} <= kinds(check_store(store))
    assert repair_store(store, sources=[twin]).damage == 0
    assert check_store(store).findings == ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("objects/stray", "stray"),
        ("objects/00/stray", "stray"),
        ("objects/00/" + "AB" * 31, "stray"),
        ("images/stray", "stray"),
        ("images/refs/file", "stray"),
        ("cfsbuild/nodes/x", "stray"),
        ("cfsbuild/layers/" + "ab" * 32, "layer-damaged"),
        ("cfsbuild/trees/" + "ab" * 32, "tree-damaged"),
        ("cfsbuild/nodes/" + "ab" * 32, "result-damaged"),
        ("cfsbuild/images/" + "ab" * 32, "list-damaged"),
        ("cfsbuild/leases/ab", "lease-damaged"),
        ("images/" + "ab" * 32, "image-link"),
    ],
)
def test_a_stray_or_broken_file_is_found_and_set_aside(store, image, name, kind):
    path = store.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"what is this")
    report = check_store(store)
    assert [(finding.kind, finding.where) for finding in report.findings] == [(kind, name)]
    mended = repair_store(store)
    assert mended.damage == 0
    assert (
        store.path / mended.findings[0].repaired.removeprefix("moved to ")
    ).read_bytes() == b"what is this"
    assert check_store(store).findings == ()


@pytest.mark.parametrize("room", ["nodes", "layers", "trees", "images"])
def test_every_flipped_bit_of_every_document_is_found(store, image, room):
    (path,) = (store.path / "cfsbuild" / room).iterdir()
    for position in range(path.stat().st_size):
        flip(path, position, position % 8)
        assert check_documents_damage(store) >= 1, position
        flip(path, position, position % 8)
    assert check_store(store).findings == ()


def check_documents_damage(store: Store) -> int:
    findings = []
    check_documents(store, findings.append)
    return sum(finding.damage for finding in findings)


def test_links_that_lead_astray_are_found(store, image):
    refs = store.path / "images/refs"
    (refs / "dangling").symlink_to("../" + "ab" * 32)
    (refs / "outside").symlink_to("../../../etc/passwd")
    (store.path / "images" / ("cd" * 32)).symlink_to("../objects/00/" + "0" * 62)
    (store.path / "images" / ("ef" * 32)).symlink_to("../objects/ef/" + "ef" * 31)
    found = {finding.where: finding.kind for finding in check_store(store).findings}
    assert found == {
        "images/refs/dangling": "ref-dangling",
        "images/refs/outside": "ref-invalid",
        "images/" + "cd" * 32: "image-link",
        "images/" + "ef" * 32: "image-missing",
    }
    with pytest.raises(StoreError, match="no image of this store"):
        store.resolve("outside")
    assert store.image("dangling") is None


def test_a_list_that_forgets_an_object_is_found_although_it_is_well_formed(store, image):
    path = store.path / "cfsbuild/images" / image.hex()
    path.chmod(0o644)
    path.write_bytes(encode_contents(list(store.objects.all())[:2]))
    assert kinds(check_store(store)) == {"list-damaged"}
    assert repair_store(store).damage == 0
    assert check_store(store).findings == ()


def test_a_result_without_its_layer_is_only_stale(store, image):
    (layer,) = (store.path / "cfsbuild/layers").iterdir()
    layer.unlink()
    report = check_store(store)
    assert kinds(report) == {"stale"}
    assert report.damage == 0


def test_an_image_that_is_no_image_is_found(store):
    with store.transaction() as transaction:
        transaction.put_image(b"not an image" * 100)
        transaction.commit()
    assert kinds(check_store(store)) == {"image-invalid"}


def test_a_writable_object_is_noted_and_set_right(store, image):
    path = object_path(store, image)
    path.chmod(0o644)
    report = check_store(store)
    assert (kinds(report), report.damage) == ({"object-mode"}, 0)
    repair_store(store)
    assert path.stat().st_mode & 0o777 == 0o444


def test_leftovers_are_noted_and_removed(store, image):
    (store.path / "cfsbuild/staging/1-dead").mkdir()
    assert kinds(check_store(store)) == {"leftover"}
    repair_store(store)
    assert check_store(store).findings == ()


def test_fsck_changes_nothing(store, image):
    flip(object_path(store, largest(store)))
    (store.path / "objects/stray").write_bytes(b"")

    def state() -> dict[str, object]:
        return {
            str(path): (os.lstat(path).st_mtime_ns, os.lstat(path).st_ino) for path in store.path.rglob("*")
        }

    before = state()
    assert check_store(store).damage == 2
    assert state() == before


def test_fsck_tells_how_far_it_is(store, image):
    seen = []
    check_store(store, listener=seen.append)
    assert (seen[-1].job, seen[-1].done) == ("fsck", seen[-1].total)


def test_info_counts_what_images_share(store):
    one = store_driver.build(store, "one")
    two = store_driver.build(store, "two")
    size = {digest: store.objects.status(digest).st_size for digest in store.objects.all()}
    facts = store_info(store)
    assert (facts.objects, facts.images, facts.references, facts.results, facts.layers) == (7, 2, 1, 2, 2)
    assert facts.stored_bytes == sum(size.values())
    by_images = {row.images: (row.objects, row.bytes) for row in facts.sharing}
    assert by_images[2][0] == 3
    assert by_images[1] == (4, facts.stored_bytes - by_images[2][1])
    assert facts.logical_bytes == by_images[1][1] + 2 * by_images[2][1]
    assert size[one] + size[two] < by_images[1][1]
    assert not facts.verity or facts.verity_reason == ""


def test_info_names_images_that_cannot_be_read(store):
    with store.transaction() as transaction:
        digest = transaction.put_image(b"not an image" * 100)
        transaction.commit()
    assert store_info(store).unreadable == (digest.hex(),)
