from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_driver import names, object_path

from cfsbuild.errors import InputError, StoreError, UsageError, VerificationError
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.store import syscalls
from cfsbuild.store.durability import Durability
from cfsbuild.store.results import NodeResult
from cfsbuild.store.store import Store
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree, make_layer, tree_digest

KEY = "ab" * 32


def small_file_digest(data: bytes) -> bytes:
    """fs-verity digest of a file of at most one block, straight from the kernel's documentation."""
    root = hashlib.sha256(data.ljust(4096, b"\0")).digest() if data else bytes(32)
    head = bytes([1, 1, 12, 0]) + bytes(4) + len(data).to_bytes(8, "little")
    return hashlib.sha256((head + root).ljust(256, b"\0")).digest()


def layer_with(digest: bytes, size: int):
    return make_layer({b"/f": Inode(mode=stat.S_IFREG | 0o644, size=size, digest=digest)})


def node_result(layer: str, key: str = KEY) -> NodeResult:
    return NodeResult(key=key, node="n", kind="file", kind_version=1, components={"a": "b"}, layer=layer)


def fd_of(data: bytes) -> int:
    fd = os.memfd_create("source")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def staged(store: Store) -> list[str]:
    return names(store.path / "cfsbuild/staging")


def test_an_object_lies_where_its_digest_says_and_cannot_be_written(store):
    data = b"some content"
    with store.transaction() as transaction:
        digest = transaction.add_bytes(data)
        transaction.commit()
    assert digest == small_file_digest(data)
    path = object_path(store, digest)
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert path.stat().st_nlink == 1
    assert store.read_object(digest) == data


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=9000), start=st.integers(0, 10))
def test_a_descriptor_is_taken_in_from_its_position_to_its_end(store, data, start):
    fd = fd_of(bytes(start) + data)
    os.lseek(fd, start, os.SEEK_SET)
    with store.transaction() as transaction:
        assert transaction.add_fd(fd) == (transaction.add_bytes(data), len(data))
        transaction.commit()
    os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 5])
def test_large_and_small_contents_come_back_unchanged(store, size):
    data = (b"0123456789" * (size // 10 + 1))[:size]
    fd = fd_of(data)
    with store.transaction() as transaction:
        digest, found = transaction.add_fd(fd)
        assert transaction.read_object(digest) == data
        transaction.commit()
    os.close(fd)
    assert found == size
    assert store.read_object(digest) == data
    assert staged(store) == []


def test_a_pipe_can_be_taken_in(store):
    reader, writer = os.pipe()
    data = b"x" * 3_000_000
    thread = threading.Thread(target=lambda: (syscalls.write_all(writer, data), os.close(writer)))
    thread.start()
    with store.transaction() as transaction:
        digest, size = transaction.add_fd(reader)
        transaction.commit()
    thread.join()
    os.close(reader)
    assert size == len(data)
    assert store.read_object(digest) == data


def test_what_cannot_be_read_is_the_inputs_fault(store, tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    with store.transaction() as transaction, pytest.raises(InputError, match="cannot read"):
        transaction.add_fd(fd)
    os.close(fd)


def test_nothing_is_seen_before_the_commit_and_all_of_it_after(store):
    with store.transaction() as transaction:
        digest = transaction.add_bytes(b"d" * 100)
        layer = layer_with(digest, 100)
        name = transaction.put_layer(layer)
        transaction.put_result(node_result(name))
        tree = Tree(entries={b"/": Inode(mode=stat.S_IFDIR | 0o755)})
        tree_name = transaction.put_tree(tree)
        image = transaction.put_image(b"image" * 100, objects=[digest])
        transaction.set_ref("a/b", image)
        assert (store.has(digest), store.layer(name), store.result(KEY), store.images(), store.refs()) == (
            False,
            None,
            None,
            [],
            {},
        )
        assert transaction.has(digest)
        transaction.commit()
    assert store.has(digest)
    assert store.layer(name) == layer
    assert store.result(KEY) == node_result(name)
    assert tree_name == tree_digest(tree)
    assert store.tree(tree_name) == tree
    assert store.images() == [image]
    assert store.refs() == {"a/b": image}
    assert store.resolve("a/b") == image
    found = store.image("a/b")
    assert (found.digest, found.size, found.name) == (image, 500, "a/b")
    assert store.image(image.hex()).name == ""
    assert store.read_image("a/b") == b"image" * 100
    assert (store.path / "images/refs/a/b").resolve().read_bytes() == b"image" * 100


def test_leaving_without_a_commit_leaves_nothing(store):
    with store.transaction() as transaction:
        digest = transaction.add_bytes(b"d" * 100)
        transaction.set_ref("x", transaction.put_image(b"i" * 50))
    assert not store.has(digest)
    assert store.refs() == {}
    assert staged(store) == []


def test_an_exception_discards_what_was_added(store):
    def fail() -> None:
        with store.transaction() as transaction:
            transaction.add_bytes(b"d" * 100)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert staged(store) == []
    assert list(store.objects.all()) == []


def test_a_transaction_can_be_committed_several_times(store):
    with store.transaction() as transaction:
        one = transaction.add_bytes(b"1" * 100)
        transaction.commit()
        assert store.has(one)
        two = transaction.add_bytes(b"2" * 100)
        transaction.add_bytes(b"1" * 100)
        transaction.commit()
        transaction.add_bytes(b"3" * 100)
    assert sorted(store.objects.all()) == sorted([one, two])


def test_what_is_there_is_not_written_again(store):
    with store.transaction() as transaction:
        digest = transaction.add_bytes(b"d" * 100)
        transaction.commit()
    before = store.objects.status(digest)
    with store.transaction() as transaction:
        transaction.add_bytes(b"d" * 100)
        assert os.listdir(transaction.staging_fd) == []  # noqa: PTH208
        transaction.commit()
    assert store.objects.status(digest).st_ino == before.st_ino


def test_an_object_of_the_wrong_size_is_replaced(store):
    with store.transaction() as transaction:
        digest = transaction.add_bytes(b"d" * 100)
        transaction.commit()
    path = object_path(store, digest)
    path.chmod(0o644)
    path.write_bytes(b"")
    with store.transaction() as transaction:
        assert transaction.add_bytes(b"d" * 100) == digest
        transaction.commit()
    assert store.read_object(digest) == b"d" * 100


@pytest.mark.parametrize("theirs", [b"d" * 99, b"d" * 100], ids=["short", "whole"])
def test_an_object_that_appears_before_the_commit_is_replaced_if_its_size_is_wrong(store, theirs):
    data = b"d" * 100
    with store.transaction() as transaction:
        digest = transaction.add_bytes(data)
        path = object_path(store, digest)
        path.parent.mkdir()
        path.write_bytes(theirs)
        appeared = path.stat().st_ino
        transaction.commit()
    assert (path.stat().st_ino == appeared) is (theirs == data)
    assert store.read_object(digest) == data
    assert staged(store) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_users_object_is_hashed_before_it_is_used(store):
    with store.transaction() as transaction:
        good, bad = transaction.add_bytes(b"g" * 100), transaction.add_bytes(b"b" * 100)
        transaction.commit()
    for digest in (good, bad):
        path = object_path(store, digest)
        if digest == bad:
            path.chmod(0o644)
            path.write_bytes(b"x" * 100)
        os.chown(path, 65534, 65534)
    with store.transaction() as transaction:
        assert transaction.known(good, 100)
        assert not transaction.known(bad, 100)
        transaction.add_bytes(b"b" * 100)
        transaction.commit()
    assert store.read_object(bad) == b"b" * 100


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_users_result_is_ignored_unless_trusted(store):
    with store.transaction() as transaction:
        digest = transaction.add_bytes(b"d" * 100)
        transaction.put_result(node_result(transaction.put_layer(layer_with(digest, 100))))
        transaction.commit()
    os.chown(store.path / "cfsbuild/nodes" / KEY, 65534, 65534)
    assert store.result(KEY) is None
    with Store.open(store.path, trusted_uids=[65534]) as trusting:
        assert trusting.result(KEY) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_in_a_shared_store_a_result_with_a_forged_object_is_a_miss(store):
    with store.transaction() as transaction:
        digest = transaction.add_bytes(b"d" * 100)
        transaction.put_result(node_result(transaction.put_layer(layer_with(digest, 100))))
        transaction.commit()
    path = object_path(store, digest)
    os.chown(path, 65534, 65534)
    store.path.chmod(0o775)
    with Store.open(store.path, shared=True) as shared:
        assert shared.result(KEY) is not None
    path.chmod(0o644)
    path.write_bytes(b"e" * 100)
    with Store.open(store.path, shared=True) as shared:
        assert shared.result(KEY) is None
        with shared.transaction() as transaction:
            transaction.add_bytes(b"d" * 100)
            transaction.commit()
        assert shared.result(KEY) is not None
    store.path.chmod(0o700)


def test_a_damaged_object_is_not_read(store):
    with store.transaction() as transaction:
        digest = transaction.add_bytes(b"d" * 100)
        transaction.commit()
    path = object_path(store, digest)
    path.chmod(0o644)
    path.write_bytes(b"e" * 100)
    with pytest.raises(VerificationError, match="damaged"):
        store.read_object(digest)


@pytest.mark.parametrize("remove", ["object", "layer", "result"])
def test_a_result_of_which_a_part_is_gone_is_a_miss(store, remove):
    with store.transaction() as transaction:
        digest = transaction.add_bytes(b"d" * 100)
        name = transaction.put_layer(layer_with(digest, 100))
        transaction.put_result(node_result(name))
        transaction.commit()
    path = {
        "object": object_path(store, digest),
        "layer": store.path / "cfsbuild/layers" / name,
        "result": store.path / "cfsbuild/nodes" / KEY,
    }[remove]
    path.unlink()
    assert store.result(KEY) is None


def test_every_flipped_bit_of_a_result_or_layer_is_a_miss(store):
    with store.transaction() as transaction:
        digest = transaction.add_bytes(b"d" * 100)
        name = transaction.put_layer(layer_with(digest, 100))
        transaction.put_result(node_result(name))
        transaction.commit()
    for path in (store.path / "cfsbuild/nodes" / KEY, store.path / "cfsbuild/layers" / name):
        good = path.read_bytes()
        path.chmod(0o644)
        for position in range(len(good) * 8):
            bad = bytearray(good)
            bad[position // 8] ^= 1 << position % 8
            path.write_bytes(bad)
            with Store.open(store.path) as fresh:
                assert fresh.result(KEY) is None, position
        path.write_bytes(good)
    assert store.result(KEY) is not None


def test_missing_lists_each_absent_object_once(store):
    with store.transaction() as transaction:
        there = [transaction.add_bytes(str(number).encode() * 30) for number in range(40)]
        transaction.commit()
    absent = [bytes([number]) * 32 for number in range(40)]
    in_one_shard = [there[0][:1] + bytes([number]) * 31 for number in range(40)]
    assert sorted(store.missing([*there, *absent, *absent])) == sorted(absent)
    assert sorted(store.missing([there[0], *in_one_shard])) == sorted(in_one_shard)


def test_references_change_atomically_and_go_with_their_directories(store):
    with store.transaction() as transaction:
        one, two = transaction.put_image(b"1" * 99), transaction.put_image(b"2" * 99)
        transaction.set_ref("a/b/c", one)
        transaction.commit()
        transaction.set_ref("a/b/c", two)
        transaction.commit()
    assert store.refs() == {"a/b/c": two}
    assert store.remove_ref("a/b/c")
    assert not store.remove_ref("a/b/c")
    assert names(store.path / "images/refs") == []


def test_a_name_cannot_be_both_image_and_directory(store):
    with store.transaction() as transaction:
        image = transaction.put_image(b"1" * 99)
        transaction.set_ref("a", image)
        transaction.commit()
        transaction.set_ref("a/b", image)
        with pytest.raises(StoreError):
            transaction.commit()
    assert store.refs() == {"a": image}


def test_only_images_get_names(store):
    with store.transaction() as transaction:
        digest = transaction.add_bytes(b"no image" * 9)
        transaction.commit()
        with pytest.raises(StoreError, match="no image"):
            transaction.set_ref("x", digest)
        with pytest.raises(UsageError):
            transaction.set_ref("../x", digest)
        with pytest.raises(UsageError):
            transaction.set_ref("x", b"short")
    assert store.image("x") is None
    assert store.image(digest.hex()) is None
    with pytest.raises(StoreError, match="no image 'x'"):
        store.read_image("x")


def test_what_a_killed_builder_left_is_removed_by_the_next_transaction(store):
    left = store.path / "cfsbuild/staging/123-dead"
    (left / "ab").mkdir(parents=True)
    (left / "ab/cd").write_bytes(b"x")
    with store.transaction() as one, store.transaction() as two:
        one.add_bytes(b"1" * 100)
        two.add_bytes(b"2" * 100)
        assert not left.exists()
        assert len(staged(store)) == 2
        two.commit()
        one.commit()
    assert len(list(store.objects.all())) == 2


def test_two_transactions_with_the_same_content_both_succeed(store):
    with store.transaction() as one, store.transaction() as two:
        for number in range(50):
            assert one.add_bytes(bytes([number]) * 100) == two.add_bytes(bytes([number]) * 100)
        one.commit()
        two.commit()
    assert len(list(store.objects.all())) == 50
    assert all(store.objects.matches(digest) for digest in store.objects.all())


def test_many_threads_may_add_while_one_commits(store):
    contents = [bytes([number % 60]) * 5000 for number in range(600)]
    with store.transaction() as transaction, ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(transaction.add_bytes, data) for data in contents]
        for _ in range(20):
            transaction.commit()
        digests = {future.result() for future in futures}
        transaction.commit()
    assert set(store.objects.all()) == digests
    assert all(store.objects.matches(digest) for digest in digests)


def test_a_thread_that_comes_too_late_is_told(store):
    with store.transaction() as transaction:
        pass
    with pytest.raises(StoreError, match="transaction is over"):
        transaction.add_bytes(b"x" * 100)


@pytest.mark.parametrize(
    ("durability", "file_systems", "files"),
    [(Durability.NONE, 0, 0), (Durability.BATCH, 1, 6), (Durability.EACH, 0, 11)],
)
def test_a_commit_syncs_no_more_than_it_must(store, monkeypatch, durability, file_systems, files):
    calls = {"syncfs": 0, "fsync": 0}
    real_syncfs, real_fsync = syscalls.sync_file_system, os.fsync
    monkeypatch.setattr(
        syscalls,
        "sync_file_system",
        lambda fd: (calls.__setitem__("syncfs", calls["syncfs"] + 1), real_syncfs(fd))[1],
    )
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.__setitem__("fsync", calls["fsync"] + 1), real_fsync(fd))[1]
    )
    with store.transaction(durability=durability) as transaction:
        digest = transaction.add_bytes(b"d" * 100)
        transaction.put_result(node_result(transaction.put_layer(layer_with(digest, 100))))
        transaction.set_ref("app", transaction.put_image(b"i" * 100, objects=[digest]))
        transaction.commit()
        transaction.commit()
    # Directories: objects/, images, lists, then layers, nodes, refs; shards move whole.
    # EACH syncs files, too: 2 objects, layer, result, list.
    assert calls == {"syncfs": file_systems, "fsync": files}


def test_a_failing_write_is_a_store_error_with_the_systems_words(store, monkeypatch):
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with store.transaction() as transaction:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StoreError, match="No space left on device") as caught:
            transaction.add_bytes(b"x" * 100)
        monkeypatch.undo()
        transaction.commit()
    assert caught.value.exit_code == 7
    assert "gc" in caught.value.resolution
    assert list(store.objects.all()) == []


def test_short_writes_are_completed(store, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:7]))
    with store.transaction() as transaction:
        digest = transaction.add_bytes(b"0123456789" * 10)
        transaction.commit()
    monkeypatch.undo()
    assert store.read_object(digest) == b"0123456789" * 10


def test_objects_written_to_the_staging_directory_are_adopted(store):
    data = b"native" * 100
    digest = small_file_digest(data)
    with store.transaction() as transaction:
        with transaction.gate.adding():
            os.mkdir(digest.hex()[:2], dir_fd=transaction.staging_fd)
            syscalls.write_file(transaction.staging_fd, f"{digest.hex()[:2]}/{digest.hex()[2:]}", data)
            transaction.adopt([digest])
        assert transaction.known(digest, len(data))
        transaction.commit()
    assert store.read_object(digest) == data


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_umask_does_not_change_objects(tmp_path, umask):
    before = os.umask(umask)
    try:
        with Store.init(tmp_path / "s") as store, store.transaction() as transaction:
            digest = transaction.add_bytes(b"x" * 100)
            transaction.commit()
    finally:
        os.umask(before)
    path = tmp_path / "s/objects" / digest.hex()[:2] / digest.hex()[2:]
    assert stat.S_IMODE(path.stat().st_mode) == 0o444


def test_sha512_stores_name_objects_by_64_bytes(tmp_path):
    with Store.init(tmp_path / "s", Algorithm.SHA512) as store, store.transaction() as transaction:
        digest = transaction.add_bytes(b"x" * 100)
        transaction.commit()
        assert len(digest) == 64
        assert store.read_object(digest) == b"x" * 100
