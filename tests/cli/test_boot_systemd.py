"""The steps of systemd's agent, as far as they can be seen without a machine that starts."""

import os
import subprocess
import sys

import msgspec
import pytest

from cfsbuild.cli import boot_systemd
from cfsbuild.deploy.boot_config import BootConfig, StateDevice
from cfsbuild.deploy.early import BootError


def config(**changes):
    once = BootConfig(
        state=StateDevice(device="/dev/vda"), bundle="boot.cred", once=True, report="no.such.port"
    )
    return msgspec.structs.replace(once, **changes)


@pytest.fixture
def image(tmp_path):
    for name in ("dev", "proc", "run", "bin", "etc"):
        (tmp_path / name).mkdir()
    (tmp_path / "etc/os-release").write_text("ID=x\n")
    (tmp_path / "bin/sh").symlink_to("busybox")
    return tmp_path


def refusal(image, **changes):
    with pytest.raises(BootError) as caught:
        boot_systemd.check_image(image, config(**changes))
    return caught.value


def test_an_image_with_what_is_needed_is_accepted(image):
    boot_systemd.check_image(image, config())
    (image / "bin/sh").unlink()
    boot_systemd.check_image(image, config(once=False))


def test_an_image_without_os_release_is_refused(image):
    (image / "etc/os-release").unlink()
    assert refusal(image).reason == "os-release"


def test_a_link_in_the_image_is_not_followed_out_of_it(image):
    (image / "run").rmdir()
    (image / "run").symlink_to("/dev")
    error = refusal(image)
    assert (error.reason, error.details) == ("exec", "it has no /run")


def test_a_command_needs_a_shell_and_an_init_has_no_arguments(image):
    assert refusal(image, once=False, exec=("/sbin/init", "3")).reason == "exec"
    (image / "bin/sh").unlink()
    assert refusal(image).brief == "the image cannot run /bin/sh: it has none"


def test_the_script_is_one_of_a_shell_whatever_the_command_is():
    hostile = "echo 'it''s'; \"$(x)\" `y` \\ \n # é"
    script = boot_systemd.command_script(config(exec=("/bin/sh", "-c", hostile)))
    done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    # What would switch this machine off is cut away; the command only prints.
    lines = script[: script.index("echo s >")].replace("/dev/console", "/dev/stdout")
    shown = lines.replace("/bin/sh -c", "printf %s")
    told = subprocess.run(["sh"], input=shown, capture_output=True, text=True, check=True).stdout
    assert told.startswith(hostile)
    report = msgspec.json.decode(told.removeprefix(hostile))
    assert (report["event"], report["status"]) == ("exited", 0)


def test_the_report_of_the_script_has_the_exit_status():
    script = boot_systemd.command_script(config(exec=("/bin/sh", "-c", "exit 41")))
    lines = script[: script.index("echo s >")].replace("/dev/console", "/dev/stdout")
    told = subprocess.run(["sh"], input=lines, capture_output=True, text=True, check=True).stdout
    assert msgspec.json.decode(told)["status"] == 41


def test_an_init_is_quoted_for_systemd_or_refused():
    assert boot_systemd.environment_file('/a "b" $c') == 'INIT="/a \\"b\\" \\$c"\n'
    with pytest.raises(BootError):
        boot_systemd.environment_file("/sbin/init\nX=1")


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (b"28,12,3456,-;systemd[1]: a warning\n SUBSYSTEM=x\n", "systemd[1]: a warning"),
        (b"30,12,3456,-;systemd[1]: only news\n", ""),
        (b"4,12,3456,-;a warning of the kernel\n", ""),
        (b"", ""),
        (b"x;y", ""),
        (b"28;\xff", "\ufffd"),
    ],
)
def test_warnings_of_processes_are_picked_from_the_kernels_log(record, text):
    assert boot_systemd.warning_of(record) == text


def test_a_step_has_a_name():
    command = [sys.executable, "-m", "cfsbuild.cli.boot_systemd", "dance"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "cfsbuild: one of these: state, mount, failed\n")


def test_steps_import_nothing_that_they_do_not_need():
    code = "import cfsbuild.cli.boot_systemd, sys; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout.split()
    assert not {"click", "networkx", "jinja2", "subprocess", "cfsbuild.store.store"} & set(found)
