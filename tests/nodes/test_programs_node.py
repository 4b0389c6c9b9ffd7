"""Programs of this machine: what their own loader says they load is what is taken, and they run elsewhere."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from node_helpers import Objects, context, problems, run, spec, unpack

from cfsbuild.errors import BuildError
from cfsbuild.nodes.registry import NODE_KINDS

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can chroot")


def in_tree(layer, path):
    """Return the file that `path` leads to in a layer."""
    parts, found = path.strip("/").split("/"), ""
    while parts:
        found = f"{found}/{parts.pop(0)}"
        inode = layer.entries.get(found.encode())
        if inode is not None and inode.is_symlink:
            target = inode.target.decode()
            parts = [*target.strip("/").split("/"), *parts]
            found = "" if target.startswith("/") else found.rpartition("/")[0]
    return found


def loaded(program):
    """Return the paths that the loader itself tells."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return {str(Path(path).resolve()) for path in re.findall(r"(/\S+) \(0x", listing)}


@pytest.mark.parametrize("program", ["bash", "/usr/bin/fsverity", "mkfs.ext4"])
def test_what_the_loader_loads_is_taken_and_nothing_else(program):
    place = shutil.which(program)
    if place is None:
        pytest.skip(f"{program} is not installed")
    layer = run("programs", programs=[program])
    files = {os.fsdecode(path) for path, inode in layer.entries.items() if inode.is_regular}
    assert files == {str(Path(place).resolve()), *loaded(place)}


@needs_root
def test_a_program_runs_where_nothing_else_is(tmp_path):
    objects = Objects()
    layer = run(
        "programs", objects, programs=["/bin/bash", "/bin/busybox"], links={"/bin/busybox": ["uname"]}
    )
    unpack(layer, objects, tmp_path)
    command = ["chroot", tmp_path, "/bin/bash", "-c", "echo $BASH_VERSION; /bin/uname"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "Linux"


def test_a_script_comes_with_its_interpreter(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/bash -e\ntrue\n")
    script.chmod(0o700)
    layer = run("programs", programs=[str(script)])
    assert layer.entries[os.fsencode(script)].mode == stat.S_IFREG | 0o755
    assert str(Path("/bin/bash").resolve()).encode() in layer.entries


def test_links_lie_beside_the_program():
    layer = run("programs", programs=["/bin/busybox"], links={"/bin/busybox": ["sh", "cat"]})
    real = Path("/bin/busybox").resolve()
    for name in ("sh", "cat"):
        link = layer.entries[os.fsencode(real.parent / name)]
        assert (stat.S_ISLNK(link.mode), link.target) == (True, b"busybox")
    assert in_tree(layer, "/bin/sh") == str(real)


def test_a_link_does_not_take_the_place_of_a_program():
    with pytest.raises(BuildError, match="is to be a link to busybox, and something else") as caught:
        run("programs", programs=["/bin/bash", "/bin/busybox"], links={"/bin/busybox": ["bash"]})
    assert caught.value.reason == "link-taken"


def test_what_is_not_there_is_found_before_anything_runs():
    assert problems("programs", programs=["no-such-program"]) == [
        "node: program no-such-program is not on this machine"
    ]
    assert problems("programs", programs=["/no/such"]) == ["node: program /no/such is not on this machine"]
    assert problems("programs", programs=["bash"], links={"busybox": ["sh"]}) == [
        "node: links to busybox, which is not among the programs"
    ]


def compiled(directory, name, source, *options):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (directory / f"{name}.c").write_text(source)
    subprocess.run(["gcc", directory / f"{name}.c", "-o", directory / name, *options], check=True)
    return directory / name


def linked(directory, *options):
    """Return a program that needs a library of its own."""
    (directory / "lib").mkdir(parents=True)
    compiled(directory, "lib/libown.so", "int own(void) { return 0; }", "-shared", "-fPIC")
    return compiled(
        directory,
        "program",
        "int own(void); int main(void) { return own(); }",
        f"-L{directory}/lib",
        "-lown",
        *options,
    )


@pytest.mark.parametrize("tag", ["--enable-new-dtags", "--disable-new-dtags"])
def test_libraries_are_found_where_the_program_says(tmp_path, tag):
    program = linked(tmp_path, f"-Wl,{tag}", "-Wl,-rpath,$ORIGIN/lib")
    layer = run("programs", programs=[str(program)])
    assert os.fsencode(tmp_path / "lib/libown.so") in layer.entries


def test_a_library_that_is_nowhere_is_named_with_the_program_that_needs_it(tmp_path):
    program = linked(tmp_path)
    with pytest.raises(BuildError, match=r"libown.so, which .*/program loads") as caught:
        run("programs", programs=[str(program)])
    assert caught.value.reason == "library-missing"


@needs_root
def test_what_only_a_cache_would_find_is_linked_beside_the_loader(tmp_path, monkeypatch):
    program = linked(tmp_path / "here")
    configuration = tmp_path / "ld.so.conf"
    configuration.write_text(f"# ours\ninclude {tmp_path}/conf.d/*.conf\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/own.conf").write_text(f"{tmp_path}/here/lib\n")
    monkeypatch.setattr("cfsbuild.nodes.libraries.LOADER_CONFIGURATION", configuration)
    objects = Objects()
    unpack(run("programs", objects, programs=[str(program)]), objects, tmp_path / "root")
    assert subprocess.run(["chroot", tmp_path / "root", program], check=False).returncode == 0


def test_every_file_that_was_looked_for_is_observed():
    seen = []
    node = spec("programs", programs=["bash"])
    NODE_KINDS["programs"].gather(context(node, Objects(), observe=seen.append), node.params)
    assert Path("/bin/bash").resolve() in {path.resolve() for path in seen}
    assert any(path.name == "libc.so.6" for path in seen)
    assert Path("/etc/ld.so.conf") in seen


def test_another_program_is_another_fingerprint(tmp_path):
    script = tmp_path / "script"
    found = []
    for text in ("#!/bin/bash\n", "#!/bin/bash\n:\n", "#!/bin/bash\n"):
        script.write_text(text)
        node = spec("programs", programs=[str(script)])
        found.append(NODE_KINDS["programs"].gather(context(node, Objects()), node.params).digests)
    assert found[0] == found[2] != found[1]
