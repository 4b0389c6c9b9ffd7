"""This interpreter, with exactly the modules that a program needs: it runs where nothing else is."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from node_helpers import Objects, context, problems, run, spec, unpack

from cfsbuild.errors import BuildError
from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.tree.layer import encode_layer

BARE = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can chroot")


def modules(layer):
    """Return the modules of a layer, as paths below the standard library."""
    return {os.fsdecode(path).partition("/python3")[2].partition("/")[2] for path in layer.entries}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that nobody has installed, on the search path, with a tool to run."""
    place = tmp_path / "site"
    (place / "ours").mkdir(parents=True)
    (place / "ours/__init__.py").write_text("")
    (place / "ours/late.py").write_text("VALUE = 5\n")
    (place / "ours/tool.py").write_text(
        "import json\nprint('noise while it is imported')\n"
        "def main():\n    import sys\n    from ours import late\n"
        "    print(json.dumps([late.VALUE, __file__, {'b', 'a', 'c'} == set('abc')]))\n    return 3\n"
    )
    monkeypatch.syspath_prepend(place)
    return place


@needs_root
@pytest.mark.parametrize("form", ["pyc", "py"])
def test_a_script_runs_where_nothing_else_is(tmp_path, package, form):
    objects = Objects()
    parameters = {"scripts": {"/run-it": "ours.tool:main"}, "modules": ["ours.late"], "form": form}
    root = tmp_path / "root"
    unpack(run("python", objects, **parameters), objects, root)
    done = subprocess.run(["chroot", root, "/run-it"], capture_output=True, text=True, check=False, env=BARE)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines()[1].startswith('[5, "')
    assert str(package) not in done.stdout


@needs_root
def test_native_modules_come_with_their_libraries(tmp_path):
    objects = Objects()
    unpack(run("python", objects, modules=["cfsbuild.deploy.mount", "zstandard", "lzma"]), objects, tmp_path)
    code = (
        "import lzma, zstandard, cfsbuild.deploy.mount; print(zstandard.ZstdCompressor().compress(b'x')[:4])"
    )
    command = ["chroot", tmp_path, Path(sys.executable).resolve(), "-IS", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=BARE)
    assert (done.stdout, done.stderr) == ("b'(\\xb5/\\xfd'\n", "")


SIGN_AND_SEAL = """\
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
import cfsbuild.trust.dsse
key = Ed25519PrivateKey.generate()
key.public_key().verify(key.sign(b"x"), b"x")
print(AESGCM(bytes(32)).decrypt(bytes(12), AESGCM(bytes(32)).encrypt(bytes(12), b"sealed", b""), b""))
"""


@needs_root
def test_keys_and_ciphers_work_there(tmp_path):
    # cryptography puts objects without a spec into the place of some of its modules.
    names = [line.split()[1] for line in SIGN_AND_SEAL.splitlines()[:3]]
    objects = Objects()
    unpack(run("python", objects, modules=names), objects, tmp_path)
    command = ["chroot", tmp_path, Path(sys.executable).resolve(), "-IS", "-c", SIGN_AND_SEAL]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=BARE)
    assert (done.stdout, done.stderr) == ("b'sealed'\n", "")


def test_a_module_that_replaces_itself_is_taken(package):
    (package / "ours/late.py").write_text(
        "import sys, types\n"
        "class Other(types.ModuleType):\n    __file__ = __file__\n"
        "sys.modules[__name__] = Other(__name__)\n"
    )
    assert "ours/late.pyc" in modules(run("python", modules=["ours.late"]))


def test_only_what_is_imported_is_taken(package):
    taken = modules(run("python", modules=["ours.tool"]))
    assert {"ours/__init__.pyc", "ours/tool.pyc", "json/decoder.pyc", "os.pyc"} <= taken
    assert "ours/late.pyc" not in taken
    assert not [name for name in taken if name.startswith(("asyncio", "unittest", "click", "msgspec"))]


def test_the_layer_follows_from_the_sources_alone(package, monkeypatch):
    first = encode_layer(run("python", modules=["ours.tool", "msgspec"]))
    monkeypatch.setenv("PYTHONHASHSEED", "99")
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    monkeypatch.setenv("LC_ALL", "C")
    os.utime(package / "ours/tool.py", (1, 1))
    previous = os.umask(0o077)
    try:
        assert encode_layer(run("python", modules=["ours.tool", "msgspec"])) == first
    finally:
        os.umask(previous)
    assert encode_layer(run("python", modules=["msgspec", "ours.tool"])) == first


def test_no_path_of_this_machine_but_the_interpreters_is_in_the_layer(package):
    objects = Objects()
    layer = run("python", objects, modules=["ours.tool", "cfsbuild.deploy.mount"])
    here = [str(package), str(Path(__file__).parents[2])]
    places = [os.fsdecode(path) for path in layer.entries]
    assert not [place for place in places if place.startswith(tuple(here))]
    contents = [
        objects.content(layer.entries[os.fsencode(place)]) for place in places if place.endswith(".pyc")
    ]
    assert not [content for content in contents if any(path.encode() in content for path in here)]


def test_another_source_is_another_fingerprint_and_every_source_is_observed(package):
    def gather(seen):
        node = spec("python", modules=["ours.tool"])
        return NODE_KINDS["python"].gather(context(node, Objects(), observe=seen.append), node.params).digests

    seen = []
    first = gather(seen)
    assert {package / "ours/tool.py", package / "ours/__init__.py"} <= set(seen)
    (package / "ours/tool.py").write_text("X = 1\n")
    assert gather([]) != first


def test_scripts_are_executable_and_isolated(package):
    objects = Objects()
    inode = run("python", objects, scripts={"/init": "ours.tool:main"}).entries[b"/init"]
    assert stat.S_IMODE(inode.mode) == 0o755
    assert objects.content(inode).startswith(b"#!/")
    assert b" -IS\nfrom ours.tool import main\n" in objects.content(inode)


def test_modules_that_are_not_there_are_found_before_anything_runs():
    assert problems("python", modules=["no_such_module.inner"]) == [
        "node: there is no Python module no_such_module.inner"
    ]
    assert problems("python") == ["node: names no module"]


@pytest.mark.parametrize(
    ("text", "told"),
    [("import nothing_like_it\n", "No module named"), ("1 +\n", "SyntaxError"), ("exit(4)", "")],
)
def test_a_module_that_cannot_be_imported_is_an_error_that_says_why(package, text, told):
    (package / "ours/tool.py").write_text(text)
    with pytest.raises(BuildError, match="cannot import the modules") as caught:
        run("python", modules=["ours.tool"])
    assert told in caught.value.details
    assert caught.value.reason == "import"
