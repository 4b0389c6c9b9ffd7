"""The kernel's answer is passed on as it is: a digest, none, or what is lacking."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess

import pytest

from cfsbuild.fsverity import digest, kernel
from cfsbuild.fsverity.algorithm import Algorithm


@pytest.fixture
def read_only(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content" * 1000)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_enabling_gives_the_computed_digest_or_says_what_is_lacking(read_only) -> None:
    expected, _ = digest.digest_fd(read_only, Algorithm.SHA256)
    try:
        kernel.enable(read_only, Algorithm.SHA256)
    except kernel.VerityUnsupported as error:
        lacking = error
    else:
        measured = kernel.measure(read_only)
        assert measured == kernel.Measurement(Algorithm.SHA256, expected)
        kernel.enable(read_only, Algorithm.SHA256)
        return
    assert lacking.reason in {"kernel", "file-system"}
    assert lacking.resolution
    if not shutil.which("fsverity"):
        pytest.skip("program `fsverity` (fsverity-utils) is not installed")
    oracle = subprocess.run(
        ["fsverity", "enable", f"/proc/self/fd/{read_only}"],
        pass_fds=[read_only],
        capture_output=True,
        check=False,
    )
    assert oracle.returncode != 0


def test_a_file_system_without_verity_is_not_mistaken_for_a_file_without(tmp_path) -> None:
    fd = os.memfd_create("no-verity-on-tmpfs")
    try:
        with pytest.raises(kernel.VerityUnsupported):
            kernel.measure(fd)
    finally:
        os.close(fd)


def test_a_closed_descriptor_is_an_os_error() -> None:
    fd = os.open(".", os.O_RDONLY)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.measure(fd)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EOPNOTSUPP, "file-system"),
        (errno.ENOTTY, "file-system"),
        (errno.EINVAL, "file"),
        (errno.ENOPKG, "algorithm"),
    ],
)
def test_what_the_kernel_refuses_is_told_apart(read_only, monkeypatch, code, reason) -> None:
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    # The kernel's part is played: no kernel refuses in all these ways at once.
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    monkeypatch.setattr(os.path, "isdir", lambda _: False)
    for question in (lambda: kernel.enable(read_only, Algorithm.SHA256), lambda: kernel.measure(read_only)):
        with pytest.raises(kernel.VerityUnsupported) as caught:
            question()
        assert caught.value.reason == reason
        assert os.strerror(code) in caught.value.details


def test_a_file_that_has_verity_is_enabled_and_one_without_measures_as_none(read_only, monkeypatch) -> None:
    codes = {kernel.FS_IOC_ENABLE_VERITY: errno.EEXIST, kernel.FS_IOC_MEASURE_VERITY: errno.ENODATA}

    def refuse(_, request, *__):
        raise OSError(codes[request], os.strerror(codes[request]))

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    kernel.enable(read_only, Algorithm.SHA256)
    assert kernel.measure(read_only) is None
