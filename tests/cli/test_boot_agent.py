"""The boot agent's mounts, by the kernel of this machine: what is pinned is what is mounted, or nothing is."""

import subprocess
from pathlib import Path

import pytest

from cfsbuild.cli import boot
from cfsbuild.deploy.boot_config import PinnedImage
from cfsbuild.deploy.mount import best_verity, unmount
from cfsbuild.errors import VerificationError


@pytest.fixture
def pinned(tmp_path, monkeypatch, lab):
    probe = subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True)
    if probe.returncode or "erofs" not in Path("/proc/filesystems").read_text():
        pytest.skip("mounting needs root and a kernel with EROFS")
    image = lab.image()
    monkeypatch.setattr(boot, "STATE", lab.directory)
    monkeypatch.setattr(boot, "ROOT", tmp_path / "root")
    (tmp_path / "root").mkdir()
    (lab.directory / "objects").symlink_to(lab.store / "objects")
    digest = subprocess.run(
        ["fsverity", "digest", "--compact", image], capture_output=True, text=True, check=True
    ).stdout.strip()
    return PinnedImage(image=image.name, digest=digest, objects=("objects",))


def test_an_image_without_verity_is_not_mounted(pinned):
    if best_verity(boot.STATE / pinned.image)[0]:
        pytest.skip("this file system has fs-verity")
    with pytest.raises(VerificationError) as caught:
        boot.mount_pinned(pinned, allow_insecure=False)
    assert caught.value.reason == "image-no-verity"
    assert list(boot.ROOT.iterdir()) == []


def test_it_is_mounted_only_where_that_is_allowed(pinned, lab):
    boot.mount_pinned(pinned, allow_insecure=True)
    try:
        assert (boot.ROOT / "usr/bin/tool").read_bytes() == lab.content
    finally:
        unmount(boot.ROOT)
