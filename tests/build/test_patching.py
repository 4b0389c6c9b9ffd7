"""A build that patches gives, byte for byte, what a build from nothing gives."""

import errno
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cfsbuild.build import outputs
from cfsbuild.build.pipeline import Options, build, make_request
from cfsbuild.errors import CfsError, StoreError
from cfsbuild.store import layout
from cfsbuild.store.contents import image_objects
from cfsbuild.store.store import Store

HEAD = '[image]\nname = "demo"\nversion = "1"\nepoch = 1700000000\n'
PLAIN = (
    HEAD + '[nodes.root]\nkind = "tree"\nsource = "src"\npreserve = ["mode", "owner", "mtime", "xattrs"]\n'
)
RECIPES = {
    "plain": PLAIN,
    "modes of the image": HEAD + '[nodes.root]\nkind = "tree"\nsource = "src"\ntarget = "/usr/share"\n',
    "rules and excludes": PLAIN
    + 'exclude = ["b0"]\nrules = [{ match = "/d/*", mode = "0640" }, { match = "/absent", mode = "0600" }]\n',
    "includes": PLAIN + 'include = ["/d/", "a*"]\n',
    "an overriding node": PLAIN
    + '[nodes.over]\nkind = "file"\ntarget = "/a0"\ncontent = "mine"\nneeds = ["root"]\nreplaces = ["/a0"]\n',
    "a reading node": PLAIN
    + '[nodes.owners]\nkind = "attributes"\nneeds = ["root"]\nrules = [{ match = "/d/a*", owner = 7 }]\n',
    "a removing node": PLAIN + '[nodes.gone]\nkind = "remove"\nneeds = ["root"]\npaths = ["/e"]\n',
    "two trees": PLAIN
    + '[nodes.other]\nkind = "tree"\nsource = "src/d"\ntarget = "/"\nneeds = ["root"]\nreplaces = ["/**"]\n',
}
FORCED = Options(force=None)
PLACES = ["a0", "b0", "d/a0", "d/b0", "d/c0", "e/a0"]
SIZES = [0, 1, 5, 64, 65, 5000]


@pytest.fixture(autouse=True)
def no_tick(monkeypatch):
    """Trust what is older than a moment: the changes below wait for the next tick of the clock."""
    for module in ("nodes.treepatch", "store.statcache", "store.shards"):
        monkeypatch.setattr(f"cfsbuild.{module}.RACY_NS", 0)


class Place:
    """A source directory, a recipe, a store that stays."""

    def __init__(self, root: Path, recipe: str) -> None:
        self.root = root
        self.source = root / "src"
        (self.source / "d").mkdir(parents=True)
        (self.source / "e").mkdir()
        for number, place in enumerate(PLACES):
            (self.source / place).write_bytes(bytes([number]) * 100)
        (root / "r.toml").write_text(recipe)

    def build(self, store: str = "store") -> dict[str, bytes]:
        """Build; return the files that came out and the store's documents that they depend on."""
        out = self.root / f"{store}-out"
        request = make_request(self.root / "r.toml", store=self.root / store, output=out)
        (result,) = build(request, Options(), environ={})
        found = {path.name: path.read_bytes() for path in out.iterdir()}
        kept = self.root / store / "cfsbuild"
        for job in result.jobs:
            if not job.job.startswith("targets."):
                found[job.job] = (kept / "layers" / job.output).read_bytes()
                found[f"result of {job.job}"] = (kept / "nodes" / job.key).read_bytes()
        with Store.open(self.root / store, read_only=True) as opened:
            image = bytes.fromhex(result.images[0].digest)
            found["objects"] = b"".join(image_objects(opened, image))
        return found

    def same_as_from_nothing(self) -> dict[str, bytes]:
        patched = self.build()
        fresh = self.build("fresh")
        shutil.rmtree(self.root / "fresh")
        shutil.rmtree(self.root / "fresh-out")
        assert patched.keys() == fresh.keys()
        assert [name for name in fresh if fresh[name] != patched[name]] == []
        return patched


def tick():
    time.sleep(0.012)


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path, PLAIN)
    tick()
    made.build()
    tick()
    return made


@pytest.fixture
def never_merge(monkeypatch):
    """Fail where a build merges layers: what a patched one never does."""
    monkeypatch.setattr("cfsbuild.build.trees.merge", None)
    monkeypatch.setattr("cfsbuild.nodes.tree.make_layer", None)


def write(path, data):
    path.write_bytes(data)
    tick()


CHANGES = {
    "content": lambda path: write(path, b"n" * 100),
    "to a small file": lambda path: write(path, b"two words\n"),
    "to an empty file": lambda path: write(path, b""),
    "to a large file": lambda path: write(path, bytes(range(256)) * 100),
    "time only": lambda path: os.utime(path, (5, 5)),
    "mode only": lambda path: path.chmod(0o4711),
    "content of another file": lambda path: write(path, bytes([1]) * 100),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_changed_file_is_patched_into_the_layer_the_dump_and_the_manifest(place, change, request):
    CHANGES[change](place.source / "d/a0")
    tick()
    fresh = place.build("fresh")
    request.getfixturevalue("never_merge")
    assert place.build() == fresh


def test_a_patched_build_is_patched_again_and_back(place, request):
    path = place.source / "d/a0"
    before = path.read_bytes()
    os.utime(path, (7, 7))
    tick()
    first = place.build()
    request.getfixturevalue("never_merge")
    write(path, b"meanwhile")
    assert place.build() != first
    path.write_bytes(before)
    os.utime(path, (7, 7))
    tick()
    assert place.build() == first


def test_a_file_that_an_editor_replaces_is_patched(place, request):
    new = place.root / "new"
    new.write_bytes(b"z" * 300)
    new.rename(place.source / "d/a0")
    tick()
    fresh = place.build("fresh")
    request.getfixturevalue("never_merge")
    assert place.build() == fresh


def test_an_object_that_vanished_meanwhile_is_taken_in_again(place):
    (place.source / "a0").write_bytes(b"n" * 200)
    tick()
    objects = place.root / "store/objects"
    for path in objects.glob("*/*"):
        if path.stat().st_size == 100:
            path.unlink()
    tick()
    place.same_as_from_nothing()
    with Store.open(place.root / "store", read_only=True) as store:
        digest = store.resolve("demo-1")
        assert all(store.has(needed) for needed in image_objects(store, digest))


@pytest.mark.parametrize("gone", [layout.LAYERS, layout.NODES, layout.CONTENTS])
def test_documents_that_vanished_are_made_again(place, gone, monkeypatch):
    monkeypatch.setattr("cfsbuild.erofs.writer.write_dump", None)  # an image for nothing
    write(place.source / "a0", b"n" * 200)
    documents = list((place.root / "store" / gone).iterdir())
    assert documents
    for path in documents:
        path.unlink()
    place.same_as_from_nothing()


def test_without_a_dump_the_image_is_patched(tmp_path, request):
    made = Place(tmp_path, PLAIN + "[targets.image]\ndump = false\n")
    tick()
    made.build()
    write(made.source / "a0", b"n" * 200)
    fresh = made.build("fresh")
    assert "demo-1.dump" not in fresh
    request.getfixturevalue("never_merge")
    assert made.build() == fresh


def test_without_a_dump_an_image_that_cannot_be_patched_is_made(tmp_path):
    made = Place(tmp_path, PLAIN + "[targets.image]\ndump = false\n")
    tick()
    made.build()
    write(made.source / "a0", b"two words")
    made.same_as_from_nothing()


@pytest.mark.parametrize("name", ["demo-1.dump", "demo-1.manifest.json"])
def test_no_image_is_patched_for_nothing_when_a_file_beside_it_is_gone(place, name, monkeypatch):
    monkeypatch.setattr("cfsbuild.erofs.patching.patch_image", None)
    write(place.source / "a0", b"n" * 200)
    (place.root / "store-out" / name).unlink()
    place.same_as_from_nothing()


@pytest.mark.parametrize("between", ["--force", "another recipe"])
def test_what_made_a_layer_anew_and_read_nothing_is_patched_next_time(place, between, request):
    write(place.source / "a0", b"n" * 200)
    place.build()
    other = place.root / "other.toml"
    other.write_text(PLAIN.replace("demo", "other").replace('"src"', '"src"\ntarget = "/usr"'))
    recipe, options = (other, Options()) if between == "another recipe" else (place.root / "r.toml", FORCED)
    whole = make_request(recipe, store=place.root / "store", output=place.root / f"{recipe.stem}-out")
    build(whole, options, environ={})
    tick()
    write(place.source / "a0", b"N" * 200)
    request.getfixturevalue("never_merge")
    build(whole, Options(), environ={})


def test_an_object_that_came_with_a_build_that_was_interrupted_is_looked_for(place, monkeypatch):
    contents = [letter * 200 for letter in (b"a", b"b", b"c")]
    for content in contents:
        write(place.source / "a0", content)
        os.utime(place.source / "a0", (5, 5))
        tick()
        place.build()
    (lost,) = (
        path for path in (place.root / "store/objects").glob("*/*") if path.read_bytes() == contents[0]
    )
    lost.unlink()
    write(place.source / "a0", contents[0])
    os.utime(place.source / "a0", (5, 5))
    tick()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cfsbuild.build.execute._Run._publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            place.build()
    tick()
    place.build()
    with Store.open(place.root / "store", read_only=True) as store:
        assert all(store.has(needed) for needed in image_objects(store, store.resolve("demo-1")))


@pytest.mark.parametrize("name", ["demo-1.dump", "demo-1.manifest.json", "demo-1.cfs"])
def test_an_output_file_that_somebody_changed_is_not_patched(place, name):
    write(place.source / "a0", b"n" * 200)
    path = place.root / "store-out" / name
    data = path.read_bytes()
    path.write_bytes(data.replace(b"0", b"1"))
    place.same_as_from_nothing()


operations = st.tuples(
    st.sampled_from(
        ["write", "mode", "time", "replace", "link", "unlink", "add", "directory", "symlink", "xattr", "copy"]
    ),
    st.sampled_from(PLACES),
    st.sampled_from(SIZES),
    st.integers(0, 3),
)


def apply(source: Path, operation: tuple[str, str, int, int]) -> None:
    """Do something to a file; whatever is not possible there is left out."""
    what, name, size, number = operation
    path, other = source / name, source / PLACES[number]
    data = bytes([65 + number]) * size
    if what in {"link", "directory", "symlink", "unlink"} and not path.is_dir():
        path.unlink(missing_ok=True)
    if what == "add":
        (path.parent / f"new{number}").write_bytes(data)
    elif what == "link" and other.is_file() and not path.exists():
        os.link(other, path, follow_symlinks=False)
    elif what == "directory" and not path.exists():
        path.mkdir()
    elif what == "symlink" and not path.exists():
        path.symlink_to(f"to{number}")
    elif path.is_file() and not path.is_symlink():
        _alter(what, path, data, number, other)


def _alter(what, path, data, number, other):
    if what == "write":
        path.write_bytes(data)
    elif what == "mode":
        path.chmod([0o600, 0o755, 0o444, 0o6555][number])
    elif what == "time":
        os.utime(path, ns=(number, number * 10**18 + 1))
    elif what == "xattr":
        os.setxattr(path, "user.n", data[:60])
    elif what == "copy" and other.is_file():
        path.write_bytes(other.read_bytes())
    elif what == "replace":
        new = path.with_name("x")
        new.write_bytes(data)
        new.replace(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(RECIPES)),
    steps=st.lists(st.lists(operations, min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_whatever_changes_the_outcome_is_that_of_a_build_from_nothing(name, steps):
    with tempfile.TemporaryDirectory() as directory:
        place = Place(Path(directory), RECIPES[name])
        tick()
        place.build()
        for step in steps:
            tick()
            for operation in step:
                apply(place.source, operation)
            tick()
            try:
                place.build("fresh")
            except CfsError as error:
                # Hard links that rules part, say: then the patched build must refuse it too.
                with pytest.raises(type(error)):
                    place.build()
                return
            shutil.rmtree(place.root / "fresh")
            shutil.rmtree(place.root / "fresh-out")
            place.same_as_from_nothing()


@pytest.mark.parametrize("worth", [0, 1 << 40])
def test_output_files_are_the_same_written_side_by_side_or_one_by_one(place, monkeypatch, worth):
    monkeypatch.setattr("cfsbuild.build.outputs._WORTH_A_THREAD", worth)
    write(place.source / "a0", b"other content" * 9)
    patched = place.same_as_from_nothing()
    assert len([name for name in patched if name.startswith("demo-1.")]) == 3


@pytest.mark.parametrize("stage", ["write", "appear"])
def test_where_one_output_file_cannot_be_written_nothing_half_written_is_left(place, monkeypatch, stage):
    monkeypatch.setattr("cfsbuild.build.outputs._WORTH_A_THREAD", 0)
    whole = getattr(outputs._New, stage)

    def failing(new, *digest):
        if new.file.name.endswith(".dump"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(new, *digest)

    monkeypatch.setattr(outputs._New, stage, failing)
    write(place.source / "a0", b"other content" * 9)
    with pytest.raises(StoreError) as caught:
        place.build()
    assert caught.value.reason == "ENOSPC"
    names = sorted(path.name for path in (place.root / "store-out").iterdir())
    assert names == ["demo-1.cfs", "demo-1.dump", "demo-1.manifest.json"]
    monkeypatch.undo()
    place.same_as_from_nothing()
