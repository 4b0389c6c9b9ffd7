"""vm: what is missing is told in one line, before anything is built; the boot agent refuses to run elsewhere."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cfsbuild.cli import vm_trust

RECIPE = """\
[image]
name = "little"
[nodes.etc]
kind = "dir"
target = "/etc"
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with nothing on it but what a test puts there."""
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr("cfsbuild.deploy.host_programs.SYSTEM_PROGRAMS", ())
    monkeypatch.setenv("CFSBUILD_VM", str(tmp_path / "kept"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("cfsbuild.deploy.guest_kernel.BOOT", tmp_path / "boot")
    monkeypatch.setattr("cfsbuild.deploy.guest_kernel.MODULES", tmp_path / "modules")
    Path("recipe.toml").write_text(RECIPE)

    def add(*names):
        for name in names:
            (directory / name).write_text("#!/bin/sh\nexit 1\n")
            (directory / name).chmod(0o755)

    return add


def make_kernel(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a kernel")
    return path


def make_modules(path):
    path.mkdir(parents=True)
    (path / "modules.dep").write_text("")
    return path


def test_missing_programs_are_named_with_what_to_install(lab, run, programs):
    result = run("vm")
    assert result.status == 1
    assert result.err == (
        "error: not installed: qemu-system-x86_64, mkfs.ext4\n  hint: apt-get install qemu-system-x86 e2fsprogs\n"
    )
    programs("qemu-system-x86_64")
    assert run("vm").err == "error: not installed: mkfs.ext4\n  hint: apt-get install e2fsprogs\n"


def test_without_a_kernel_it_says_where_it_looked(lab, run, programs, tmp_path):
    programs("qemu-system-x86_64", "mkfs.ext4")
    result = run("vm")
    assert result.status == 2
    assert f"looked for {tmp_path}/kept/vmlinuz and {tmp_path}/boot/vmlinuz-*" in result.err
    assert "apt-get install linux-image" in result.err


def test_a_kernel_that_is_named_must_be_there_and_have_modules(lab, run, programs, tmp_path):
    programs("qemu-system-x86_64", "mkfs.ext4")
    assert "there is no kernel none" in run("vm", "--kernel", "none").err
    kernel = make_kernel(tmp_path / "elsewhere/vmlinuz-1.2")
    result = run("vm", "--kernel", kernel)
    assert (result.status, "--modules DIR" in result.err) == (2, True)
    assert "modules are given without their kernel" in run("vm", "--modules", "m").err


def test_it_says_which_kernel_it_takes(lab, run, programs, tmp_path):
    programs("qemu-system-x86_64", "mkfs.ext4")
    ours = make_kernel(tmp_path / f"boot/vmlinuz-{os.uname().release}")
    make_modules(tmp_path / "modules" / os.uname().release)
    make_modules(tmp_path / "modules/9.9")
    make_kernel(tmp_path / "boot/vmlinuz-9.9")
    missing = ("vm", "no-recipe.toml")
    assert f"kernel: {ours}, modules: {tmp_path}/modules/{os.uname().release}\n" in run(*missing).err
    kept = make_kernel(tmp_path / "kept/vmlinuz")
    make_modules(tmp_path / "kept/modules")
    assert f"kernel: {kept}, modules: {tmp_path}/kept/modules\n" in run(*missing).err
    named = run(*missing, "--kernel", tmp_path / "boot/vmlinuz-9.9")
    assert f"kernel: {tmp_path}/boot/vmlinuz-9.9, modules: {tmp_path}/modules/9.9\n" in named.err


@pytest.fixture
def ready(programs, tmp_path):
    programs("qemu-system-x86_64", "mkfs.ext4")
    make_kernel(tmp_path / "kept/vmlinuz")
    make_modules(tmp_path / "kept/modules")
    Path("early.toml").write_text(
        RECIPE.replace("little", "early") + '[vars]\nmodules = ""\n[targets.initramfs]\n'
    )


def test_a_recipe_that_is_not_there_is_a_mistake_of_the_user(lab, run, ready):
    assert (run("vm", "none.toml").status, run("vm", "--initramfs", "none.toml").status) == (2, 2)


def test_an_initramfs_recipe_needs_the_target(lab, run, ready):
    Path("early.toml").write_text(RECIPE + '[vars]\nmodules = ""\n')
    result = run("vm", "--initramfs", "early.toml")
    assert result.status == 2
    assert "early.toml has no target 'initramfs'" in result.err


def test_a_matrix_is_not_one_image(lab, run, ready):
    Path("recipe.toml").write_text(RECIPE + '[matrix]\narch = ["a", "b"]\n')
    result = run("vm", "--initramfs", "early.toml")
    assert result.status == 2
    assert "describes 2 images" in result.err


def test_what_mkfs_says_is_told_and_no_disk_is_left(lab, run, ready, tmp_path):
    result = run("vm", "--initramfs", "early.toml", "--keep", "disk")
    assert (result.status, "mkfs.ext4 cannot make the machine's disk" in result.err) == (7, True)
    assert [path.name for path in Path().iterdir() if "disk" in path.name] == []


def test_a_disk_must_be_a_file(lab, run, ready):
    Path("disk").mkdir()
    result = run("vm", "--initramfs", "early.toml", "--keep", "disk")
    assert (result.status, "disk is not a regular file" in result.err) == (2, True)


def test_a_machine_that_does_not_start_is_told_of(lab, run, ready):
    Path("disk").write_bytes(b"")
    arguments = ("vm", "--initramfs", "early.toml", "--keep", "disk", "--exec", "true", "--no-tpm")
    assert (run(*arguments).status, "is no disk that --keep made" in run(*arguments).err) == (2, True)
    Path("disk.trust").mkdir()
    digest = bytes.fromhex(run("build", "recipe.toml").text.split()[0])
    for image, status, words in (
        (bytes(32), 2, "another image than the recipe makes"),
        (digest, 1, "the machine stopped before it had started"),
    ):
        bundle = vm_trust.bundle_of(None, name="little", digest=image, image_format=1, size=1)
        vm_trust.make_trust(Path("disk.trust"), bundle, None)
        result = run(*arguments)
        assert (result.status, words in result.err) == (status, True), result.err


def test_two_machines_do_not_share_a_disk(lab, run, ready):
    Path("disk").write_bytes(b"")
    Path("disk.trust").mkdir()
    digest = bytes.fromhex(run("build", "recipe.toml").text.split()[0])
    bundle = vm_trust.bundle_of(None, name="little", digest=digest, image_format=1, size=1)
    vm_trust.make_trust(Path("disk.trust"), bundle, None)
    with Path("disk").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = run("vm", "--initramfs", "early.toml", "--keep", "disk", "--exec", "true", "--no-tpm")
    assert (result.status, "another machine uses the disk" in result.err) == (2, True)


@pytest.mark.parametrize("verb", ["vm", "seal", "unseal", "enroll", "umount"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_verbs_that_have_no_dry_run_say_so(lab, run, verb, place):
    Path("a").write_text("")
    arguments = {"vm": [], "seal": ["--to", "a", "a"], "unseal": ["a"], "enroll": [], "umount": ["a"]}[verb]
    result = run(*(["-n", verb] if place == "before" else [verb, "-n"]), *arguments)
    assert (result.status, "has no dry run" in result.err) == (2, True), result.err


def test_a_console_is_no_json(lab, run, ready):
    result = run("vm", "--json")
    assert (result.status, "--json needs --exec" in result.err) == (2, True)


def test_systemd_needs_a_tpm_and_its_root_needs_systemd(lab, run, ready):
    early = ("vm", "--initramfs", "early.toml")
    result = run(*early, "--systemd-root", ".")
    assert (result.status, "--systemd-root needs --agent systemd" in result.err) == (2, True)
    text = Path("early.toml").read_text()
    Path("early.toml").write_text(text.replace("[vars]", '[vars]\nroot = ""'))
    result = run(*early, "--agent", "systemd", "--no-tpm")
    assert (result.status, "the machine has none" in result.err) == (2, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--agent", "upstart"),
        ("--systemd-root", "none"),
        ("--memory", "1"),
        ("--cpus", "0"),
        ("--timeout", "0"),
        ("--memory", "much"),
        ("a.toml", "b.toml"),
    ],
)
def test_options_that_make_no_sense_are_refused(lab, run, arguments):
    assert run("vm", *arguments).status == 2


def test_the_boot_agent_is_no_program_to_call():
    done = subprocess.run(
        [sys.executable, "-m", "cfsbuild.cli.boot"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "cfsbuild: this starts a machine: it has to be the first process of one\n"


def test_the_boot_agent_imports_nothing_that_it_does_not_need():
    code = "import cfsbuild.cli.boot, sys; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"click", "networkx", "jinja2", "subprocess", "cfsbuild.store.store"} & set(found)
