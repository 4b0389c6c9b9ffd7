"""Whether KVM works is found out by trying, and is asked once."""

import os
from pathlib import Path

import pytest

from cfsbuild.deploy import kvm


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """Stand-ins for QEMU: programs that write what it would; `count` has a line for each time one ran."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(kvm, "DEVICE", device)
    (tmp_path / "kernel").write_text("a kernel")

    def why_not(script):
        qemu = tmp_path / "qemu"
        qemu.write_text(f"#!/bin/sh\necho run >>{tmp_path}/count\n{script}\n")
        qemu.chmod(0o755)
        os.utime(qemu, (1, 1))
        return kvm.why_no_kvm(str(qemu), tmp_path / "kernel", tmp_path / "cache")

    return why_not


def count(tmp_path):
    return len((tmp_path / "count").read_text().splitlines())


def test_a_kernel_that_says_its_name_runs(tried):
    assert tried("printf 'SeaBIOS\\n[    0.0] Linux ver'; printf 'sion 6.12'; exec sleep 100") == ""


@pytest.mark.parametrize(
    "script", ["echo 'KVM internal error. Suberror: 1' >&2; exec sleep 100", "exit 1", "echo Booting"]
)
def test_a_kernel_that_does_not_start_is_told_of(tried, script):
    assert "KVM fails on this machine" in tried(script)


def test_one_that_says_nothing_is_not_waited_for_and_is_asked_again(tried, tmp_path, monkeypatch):
    monkeypatch.setattr(kvm, "_SECONDS", 0.2)
    for _ in range(2):
        assert "within 0 s" in tried("exec sleep 100")
    assert count(tmp_path) == 2


def test_it_is_asked_once(tried, tmp_path):
    for _ in range(3):
        assert "KVM fails" in tried("exit 1")
    assert count(tmp_path) == 1
    (tmp_path / "kernel").write_text("another kernel")
    tried("exit 1")
    assert count(tmp_path) == 2


def test_without_the_device_nothing_is_tried(tried, tmp_path, monkeypatch):
    monkeypatch.setattr(kvm, "DEVICE", Path("/no/kvm"))
    assert tried("exit 1") == "there is no /no/kvm"
    assert not (tmp_path / "count").exists()
