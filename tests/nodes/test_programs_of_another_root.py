"""Programs of a system in a directory: everything of theirs is its, and no link in it leads out."""

import os
import re
import subprocess
from pathlib import Path

import lab
import pytest
from node_helpers import Objects, problems, run, unpack

from cfsbuild.errors import BuildError

SECRET = b"of this machine"


@pytest.fixture
def system(tmp_path):
    """A directory with a script, a file that it is not to be confused with lies outside."""
    root = tmp_path / "system"
    (root / "usr/bin").mkdir(parents=True)
    (root / "bin").symlink_to("usr/bin")
    (root / "usr/bin/tool").write_bytes(b"a tool")
    (root / "usr/bin/tool").chmod(0o755)
    (tmp_path / "outside").write_bytes(SECRET)
    return root


def taken(root, *programs, **parameters):
    """Return the files and the links of a layer."""
    objects = Objects()
    layer = run("programs", objects, root=str(root), programs=list(programs), **parameters)
    files = {os.fsdecode(p): objects.content(i) for p, i in layer.entries.items() if i.is_regular}
    links = {os.fsdecode(p): os.fsdecode(i.target) for p, i in layer.entries.items() if i.is_symlink}
    return files, links


def test_paths_in_the_tree_are_those_in_the_system(system):
    assert taken(system, "/bin/tool") == ({"/usr/bin/tool": b"a tool"}, {"/bin": "usr/bin"})
    assert taken(system, "tool")[0] == {"/usr/bin/tool": b"a tool"}


@pytest.mark.parametrize("way", ["/usr/bin/tool", "../../../../../../../../usr/bin/tool", "/../bin/tool"])
def test_links_mean_what_they_mean_in_the_system(system, way):
    (system / "usr/bin/called").symlink_to(way)
    files, links = taken(system, "called")
    assert files == {"/usr/bin/tool": b"a tool"}
    assert links["/usr/bin/called"] == way


@pytest.mark.parametrize("way", ["{outside}", "../../../../../../../..{outside}", "../../../outside"])
def test_no_link_leads_out_of_the_system(system, tmp_path, way):
    (system / "usr/bin/out").symlink_to(way.format(outside=tmp_path / "outside"))
    assert (system / "usr/bin/out").read_bytes() == SECRET
    told = problems("programs", root=str(system), programs=["out"])
    assert told == [f"node: program out is not in {system}"]


def test_no_directory_leads_out_of_the_system(system, tmp_path):
    (system / "out").symlink_to(tmp_path)
    assert problems("programs", root=str(system), programs=["/out/outside", "/../outside"]) == [
        f"node: program /out/outside is not in {system}",
        f"node: program /../outside is not in {system}",
    ]
    assert taken(system, "/../../bin/tool")[0] == {"/usr/bin/tool": b"a tool"}


def test_links_in_a_circle_lead_nowhere(system):
    (system / "usr/bin/a").symlink_to("b")
    (system / "usr/bin/b").symlink_to("a")
    assert problems("programs", root=str(system), programs=["a"]) == [f"node: program a is not in {system}"]


def test_a_root_must_be_a_directory(system):
    root = system / "usr/bin/tool"
    assert problems("programs", root=str(root), programs=["a"]) == [f"node: {root} is not a directory"]


def test_a_script_whose_interpreter_only_this_machine_has_is_refused(system):
    (system / "usr/bin/script").write_text("#!/usr/bin/env -S x\n")
    with pytest.raises(BuildError, match=r"cannot open .*/system/usr/bin/env"):
        taken(system, "script")


def test_a_program_that_loads_nothing_has_no_libraries(system):
    with pytest.raises(BuildError, match="loads no libraries"):
        taken(system, "tool", libraries=["libc.so.6"])


def test_libraries_of_this_machine_are_found_by_name():
    with pytest.raises(BuildError, match=r"library libnone\.so\.9, which /bin/bash loads") as caught:
        taken("/", "/bin/bash", libraries=["libnone.so.9"])
    assert caught.value.reason == "library-missing"
    assert [name for name in taken("/", "/bin/bash", libraries=["libm.so.6"])[0] if "/libm" in name]
    assert not [name for name in taken("/", "/bin/bash")[0] if "/libm" in name]


@pytest.mark.lab
@pytest.mark.parametrize("program", ["/usr/lib/systemd/systemd", "/usr/bin/systemctl", "/usr/bin/swtpm"])
def test_what_the_loader_of_the_other_system_loads_is_taken_and_nothing_else(program):
    lab.require(Path(program).name if "lib" not in program else "systemd-executor")
    root = lab.lab_path()
    told = lab.run("ldd", program).stdout.decode()
    loaded = {lab.run("realpath", path).stdout.decode().strip() for path in re.findall(r"(/\S+) \(0x", told)}
    files, _ = taken(root, program)
    assert set(files) == {program, *loaded}
    assert files[program] == (root / program.lstrip("/")).read_bytes()


@pytest.mark.lab
def test_a_program_of_another_system_runs_where_nothing_else_is(tmp_path):
    lab.require("systemd-creds")
    objects = Objects()
    layer = run("programs", objects, root=str(lab.lab_path()), programs=["systemctl"])
    unpack(layer, objects, tmp_path)
    done = subprocess.run(
        ["chroot", tmp_path, "/usr/bin/systemctl", "--version"], capture_output=True, text=True, check=True
    )
    theirs = lab.run("systemctl", "--version").stdout.decode()
    assert done.stdout == theirs
