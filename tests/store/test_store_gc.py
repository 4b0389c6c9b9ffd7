from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import store_driver
from store_driver import names, object_path

from cfsbuild import events
from cfsbuild.errors import StoreError
from cfsbuild.store import leases, locks
from cfsbuild.store.contents import encode_contents
from cfsbuild.store.fsck import check_store
from cfsbuild.store.gc import collect
from cfsbuild.store.info import store_info
from cfsbuild.store.store import Store
from cfsbuild.tree.layer import document_digest


def add(store: Store, *contents: bytes) -> list[bytes]:
    with store.transaction() as transaction:
        digests = [transaction.add_bytes(data) for data in contents]
        transaction.commit()
    return digests


def key(version: str) -> str:
    return document_digest(f"key {version}".encode())


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)


def test_what_nothing_names_goes_and_what_an_image_needs_stays(store):
    image = store_driver.build(store, "one")
    (loose,) = add(store, b"loose" * 100)
    before = set(store.objects.all())
    report = collect(store, keep_age=0)
    assert set(store.objects.all()) == before - {loose}
    assert loose.hex() in {item.name for item in report.removed if item.kind == "object"}
    assert store.image("images/app").digest == image
    assert check_store(store).findings == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_users_list_of_what_an_image_needs_is_not_believed(store):
    image = store_driver.build(store, "one")
    before = set(store.objects.all())
    path = store.path / "cfsbuild/images" / image.hex()
    path.unlink()
    path.write_bytes(encode_contents(()))
    os.chown(path, 65534, 65534)
    collect(store, keep_age=0, grace=0)
    assert set(store.objects.all()) == before


def test_a_build_again_after_gc_gives_the_same_image(store):
    image = store_driver.build(store, "one")
    store.remove_ref("images/app")
    collect(store, keep_age=0, grace=0)
    assert list(store.objects.all()) == []
    assert store.result(key("one")) is None
    assert store_driver.build(store, "one") == image
    assert check_store(store).findings == ()


def test_the_dry_run_removes_nothing_and_says_why_each_object_lives(store):
    store_driver.build(store, "one")
    (loose,) = add(store, b"loose" * 100)
    before = set(store.objects.all())
    report = collect(store, dry_run=True, keep_age=0)
    assert set(store.objects.all()) == before
    assert report.dry_run
    assert {kept.object for kept in report.kept} == {digest.hex() for digest in before - {loose}}
    assert all("reference images/app" in kept.why for kept in report.kept)
    assert [item.name for item in report.removed if item.kind == "object"] == [loose.hex()]
    real = collect(store, keep_age=0)
    assert set(real.removed) == set(report.removed)


def test_a_dry_run_names_results_and_leases_as_reasons(store):
    store_driver.build(store, "one")
    store.remove_ref("images/app")
    (held,) = add(store, b"held" * 100)
    with store.lease("upload") as lease:
        lease.protect([held])
        whys = {kept.object: kept.why for kept in collect(store, dry_run=True).kept}
    assert "(upload)" in whys[held.hex()]
    assert any("younger than the keep age" in why for why in whys.values())


def test_results_live_for_the_keep_age_after_their_last_use(store):
    store_driver.build(store, "one")
    store.remove_ref("images/app")
    for path in (*(store.path / "cfsbuild").glob("[nt]*/*"), *(store.path / "images").glob("[0-9a-f]*")):
        age(path, 10_000)
    assert store.result(key("one")) is not None
    collect(store, keep_age=5_000)
    assert store.result(key("one")) is not None
    assert store.images() == []
    age(store.path / "cfsbuild/nodes" / key("one"), 10_000)
    collect(store, keep_age=5_000)
    assert store.result(key("one")) is None
    assert list(store.objects.all()) == []


def test_reading_a_result_in_a_read_only_store_does_not_touch_it(store):
    store_driver.build(store, "one")
    path = store.path / "cfsbuild/nodes" / key("one")
    age(path, 10_000)
    before = path.stat().st_mtime
    with Store.open(store.path, read_only=True) as reading:
        assert reading.result(key("one")) is not None
    assert path.stat().st_mtime == before


def test_an_object_in_the_trash_is_taken_back_when_it_is_asked_for(store):
    (digest,) = add(store, b"loose" * 100)
    collect(store, keep_age=0)
    assert list(store.objects.all()) == []
    assert store_info(store).trash_objects == 1
    assert store.read_object(digest) == b"loose" * 100
    assert list(store.objects.all()) == [digest]


def test_a_build_takes_objects_back_from_the_trash(store):
    (digest,) = add(store, b"loose" * 100)
    collect(store, keep_age=0)
    with store.transaction() as transaction:
        transaction.add_bytes(b"loose" * 100)
        assert os.listdir(transaction.staging_fd) == []  # noqa: PTH208
        transaction.commit()
    assert list(store.objects.all()) == [digest]


def test_the_trash_is_emptied_after_the_grace_time(store):
    (digest,) = add(store, b"loose" * 100)
    collect(store, keep_age=0, grace=600)
    (batch,) = (store.path / "cfsbuild/trash").glob("gc-*")
    assert collect(store, keep_age=0, grace=600).purged == 0
    age(batch, 700)
    report = collect(store, keep_age=0, grace=600)
    assert (report.purged, report.purged_bytes) == (1, 500)
    assert not store.has(digest)


def test_a_trash_from_the_future_is_kept(store):
    add(store, b"loose" * 100)
    collect(store, keep_age=0)
    (batch,) = (store.path / "cfsbuild/trash").glob("gc-*")
    age(batch, -10_000)
    assert collect(store, keep_age=0, grace=600).purged == 0


def test_a_lease_keeps_objects_and_results_until_it_is_released(store):
    store_driver.build(store, "one")
    store.remove_ref("images/app")
    (held, loose) = add(store, b"held" * 100, b"loose" * 100)
    with store.lease("test") as lease:
        lease.protect([held], results=[key("one")])
        collect(store, keep_age=0, grace=0)
        assert store.has(held)
        assert not store.has(loose)
        assert store.result(key("one")) is not None
    collect(store, keep_age=0, grace=0)
    assert not store.has(held)
    assert store.result(key("one")) is None
    assert names(store.path / "cfsbuild/leases") == []


def test_a_lease_of_an_image_keeps_all_that_the_image_needs(store):
    image = store_driver.build(store, "one")
    store.remove_ref("images/app")
    with store.lease("mount") as lease:
        lease.protect([image])
        collect(store, keep_age=0, grace=0)
        assert check_store(store).damage == 0
        assert store.images() == [image]


def test_a_detached_lease_lives_for_its_time_only(store):
    (held,) = add(store, b"held" * 100)
    name = store.lease("hold", ttl=3600).detach()
    path = store.path / "cfsbuild/leases" / name
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines, b"o " + held.hex().encode(), b""]))
    collect(store, keep_age=0, grace=0)
    assert store.has(held)
    path.write_bytes(
        b"\n".join([lines[0], b"o " + held.hex().encode(), b"t 1 0", b"t 1 -5", b""]).replace(b"3600", b"1")
    )
    collect(store, keep_age=0, grace=0)
    assert not store.has(held)
    assert not path.exists()


@pytest.mark.parametrize(
    ("boot", "wall_clock", "boot_clock", "lives"),
    [
        ("this", "old", "new", True),
        ("this", "new", "old", False),
        ("another", "new", "old", True),
        ("another", "old", "new", False),
    ],
)
def test_a_lease_is_timed_by_the_clock_that_never_jumps_until_the_next_boot(
    store, boot, wall_clock, boot_clock, lives
):
    (held,) = add(store, b"held" * 100)
    path = store.path / "cfsbuild/leases" / store.lease("hold", ttl=10).detach()
    header = path.read_bytes().splitlines()[0]
    if boot == "another":
        header = header.replace(leases.boot_id().encode(), b"another")
    wall = 1 if wall_clock == "old" else int(time.time())
    booted = 0 if boot_clock == "old" else int(time.clock_gettime(time.CLOCK_BOOTTIME))
    path.write_bytes(header + f"\no {held.hex()}\nt {wall} {booted}\n".encode())
    collect(store, keep_age=0, grace=0)
    assert store.has(held) is lives


def test_the_lease_of_a_killed_process_is_dead(store):
    (held,) = add(store, b"held" * 100)
    code = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom cfsbuild.store.store import Store\n"
        "s = Store.open(Path(sys.argv[1]))\nl = s.lease('dies')\nl.protect([bytes.fromhex(sys.argv[2])])\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.path), held.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        collect(store, keep_age=0, grace=0)
        assert store.has(held)
        process.kill()
    collect(store, keep_age=0, grace=0)
    assert not store.has(held)
    assert leases.living(store.fd, store.algorithm, remove_dead=False) == []


def test_a_torn_last_line_of_a_lease_is_ignored(store):
    (held,) = add(store, b"held" * 100)
    with store.lease("test") as lease:
        lease.protect([held])
        with (store.path / "cfsbuild/leases" / lease.name).open("ab") as file:
            file.write(b"o abc")
        (info,) = leases.living(store.fd, store.algorithm, remove_dead=False)
        assert info.objects == {held}


def test_a_sweep_that_waits_for_a_long_build_lets_short_ones_pass(store, monkeypatch):
    monkeypatch.setattr(locks, "_GATE_SECONDS", 0.05)
    swept = threading.Event()

    def sweep():
        with locks.exclusive(store.fd, seconds=30):
            swept.set()

    thread = threading.Thread(target=sweep)
    with store.transaction():
        thread.start()
        for _ in range(5):
            time.sleep(0.02)
            with store.transaction():
                assert not swept.is_set()
        assert thread.is_alive()
    thread.join()
    assert swept.is_set()


def test_gc_waits_for_a_transaction_and_gives_up_with_a_clear_line(store):
    with store.transaction() as transaction:
        transaction.add_bytes(b"x" * 100)
        with pytest.raises(StoreError, match="in use") as caught:
            collect(store, keep_age=0, wait=0.1)
        assert caught.value.exit_code == 7
        transaction.commit()


def test_gc_goes_on_when_the_transaction_ends(store):
    add(store, b"loose" * 100)
    with store.transaction() as transaction:
        thread = threading.Thread(target=collect, args=(store,), kwargs={"keep_age": 0, "wait": 20})
        thread.start()
        time.sleep(0.2)
        transaction.add_bytes(b"loose" * 100)
        transaction.commit()
    thread.join(20)
    assert not thread.is_alive()


def test_two_gcs_do_not_run_at_once(store):
    with locks.collector(store.fd), pytest.raises(StoreError, match="another gc") as caught:
        collect(store)
    assert f"process {os.getpid()}" in caught.value.details


def test_a_foreign_gc_with_the_repository_lock_keeps_builds_waiting(store):
    fd = os.open(store.path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    done = threading.Event()

    def build() -> None:
        add(store, b"x" * 100)
        done.set()

    thread = threading.Thread(target=build)
    thread.start()
    assert not done.wait(0.2)
    os.close(fd)
    assert done.wait(20)
    thread.join()


def test_streams_of_composefs_rs_keep_every_object(store):
    (digest,) = add(store, b"in a stream" * 10)
    (store.path / "streams").mkdir()
    (store.path / "streams" / ("ab" * 32)).symlink_to("../objects/ab/cd")
    report = collect(store, keep_age=0, grace=0)
    assert report.foreign
    assert store.has(digest)


def test_a_damaged_image_stops_gc_since_nobody_knows_what_it_needs(store):
    image = store_driver.build(store, "one")
    (store.path / "cfsbuild/images" / image.hex()).unlink()
    path = object_path(store, image)
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    before = set(store.objects.all())
    with pytest.raises(StoreError, match="cannot be read"):
        collect(store, keep_age=0)
    assert set(store.objects.all()) == before


def test_without_the_list_gc_reads_the_image_itself(store):
    image = store_driver.build(store, "one")
    (store.path / "cfsbuild/images" / image.hex()).unlink()
    collect(store, keep_age=0, grace=0)
    assert check_store(store).findings == ()


def test_gc_tells_how_far_it_is(store):
    add(store, *(bytes([number]) * 100 for number in range(50)))
    seen = []
    collect(store, keep_age=0, listener=seen.append)
    assert seen[-1] == events.Progress(job="gc", unit="objects", done=50, total=50)


def test_gc_removes_what_killed_builders_left(store):
    (store.path / "cfsbuild/staging/1-dead/ab").mkdir(parents=True)
    assert collect(store, dry_run=True).leftovers == 1
    assert collect(store).leftovers == 1
    assert names(store.path / "cfsbuild/staging") == []


def test_result_lookup_with_a_lease_survives_a_gc_in_between(store):
    store_driver.build(store, "one")
    store.remove_ref("images/app")
    with store.lease("build") as lease:
        result = store.result(key("one"), lease=lease)
        collect(store, keep_age=0, grace=0)
        assert store.result(key("one")) == result
        assert store.missing(inode.digest for inode in store.layer(result.layer).entries.values()) == []


@pytest.mark.parametrize("data", [b"", b'{"vers', b'{"version":1,"purpose":"x"'])
def test_a_lease_that_was_never_finished_goes(store, data):
    (store.path / "cfsbuild/leases/abc").write_bytes(data)
    assert check_store(store).findings == ()
    collect(store)
    assert names(store.path / "cfsbuild/leases") == []


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_what_is_no_file_among_the_leases_is_left_to_fsck(store, make):
    store_driver.build(store, "one")
    make(store.path / "cfsbuild/leases/stray")
    collect(store)
    assert store_info(store).leases == 0
    (finding,) = check_store(store).findings
    assert (finding.kind, finding.where) == ("lease-damaged", "cfsbuild/leases/stray")


def test_a_detached_lease_is_released_by_its_name(store):
    (held,) = add(store, b"held" * 100)
    lease = store.lease("mount", ttl=3600)
    lease.protect([held])
    name = lease.detach()
    collect(store, keep_age=0, grace=0)
    assert store.has(held)
    assert store.release_lease(name)
    assert not store.release_lease(name)
    assert not store.release_lease("../locks/gate")
    collect(store, keep_age=0, grace=0)
    assert not store.has(held)
