"""How a machine starts from a bundle, by the kernel of this machine and a software TPM."""

import contextlib
import ctypes
import os
import subprocess
from pathlib import Path

import edge
import msgspec
import pytest
import swtpm
from enrolled import Between, Enrolled, swallowed

from cfsbuild.cli import boot, boot_systemd
from cfsbuild.deploy import boot_bundle, boot_report
from cfsbuild.deploy.boot_config import BootConfig, StateDevice
from cfsbuild.deploy.kernel_features import has_feature
from cfsbuild.errors import CfsError
from cfsbuild.trust import counter, enrolment
from cfsbuild.trust.tpm.transport import Transport, open_transport

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

RECIPE = (
    edge.IMAGE
    + """\
[nodes.etc]
kind = "dir"
targets = ["/etc", "/var"]
[targets.bundle]
generation = 1
sign = ["k.key"]
level = "sealed"
[targets.bundle.state]
etc = "transient"
var = "persistent"
[targets.bundle.seal]
machines = ["m.json"]
pcrs = { "15" = "0" }
"""
)
_GET_DUMPABLE = 3
_SET_DUMPABLE = 4


class Starting:
    """A machine that starts: its initramfs's files, its disk, where its image is to be."""

    def __init__(self, directory, store, tpm):
        self.keys = directory / "keys"
        self.disk = directory / "disk"
        self.root = directory / "root"
        self.told = []
        for path in (self.keys, self.disk, self.root, directory / "revoked"):
            path.mkdir()
        (self.disk / "objects").symlink_to(store / "objects")
        self.config = BootConfig(
            state=StateDevice(device="/dev/vda"),
            bundle="edge.cfsb",
            keys=str(self.keys),
            revoked=str(directory / "revoked"),
            allow_insecure=True,
            tpm=tpm,
            enrolment=str(directory / "m.json"),
            secrets=str(directory / "secrets"),
        )

    def start(self, **changes):
        self.told = []
        config = msgspec.structs.replace(self.config, **changes)
        boot_bundle.enter(config, self.disk, self.root, self.told.append)

    def refused(self, **changes):
        with pytest.raises(CfsError) as caught:
            self.start(**changes)
        assert not os.path.ismount(self.root)
        return caught.value.reason


@pytest.fixture
def tpm(tmp_path):
    with swtpm.running(tmp_path / "tpm") as made:
        yield made


@pytest.fixture
def machine(lab, run, tpm, monkeypatch):
    # It remounts the file system of the objects, which here is this machine's own.
    monkeypatch.setattr("cfsbuild.deploy.early.make_writable", lambda _: None)
    # What is written to memory elsewhere is not looked at here.
    monkeypatch.setattr(
        "cfsbuild.deploy.secrets._MEMORY", frozenset({"ext4", "overlay", "tmpfs", "xfs", "btrfs"})
    )
    made = Starting(lab.directory, lab.store, tpm.name)
    enrolled = Enrolled(tpm)
    Path("m.json").write_bytes(enrolment.encode(enrolled.enrolment))
    for name in ("k", "other"):
        assert run("key", "new", name).status == 0
    Path("edge.toml").write_text(RECIPE)
    assert run("build", "edge.toml").status == 0
    for suffix in ("cfsb", "policy.json", "bundle"):
        (made.disk / f"edge.{suffix}").write_bytes(Path(f"out/edge-1.{suffix}").read_bytes())
    (made.keys / "k.pub").write_bytes(Path("k.pub").read_bytes())
    made.enrolled = enrolled
    yield made
    subprocess.run(["umount", "-R", "-l", made.root], check=False, capture_output=True)


def test_a_machine_unseals_verifies_mounts_and_says_so(machine):
    machine.start()
    assert (machine.root / "motd").read_text() == "x" * 100
    assert machine.told[0].startswith("opening edge.")
    assert machine.told[1].startswith("edge 1, generation 1, signed by ")
    assert (machine.root / "etc/machine-id").read_text() == (
        machine.disk / "state/edge/machine-id"
    ).read_text()
    (machine.root / "var/kept").touch()
    assert (machine.disk / "state/edge/var/upper/kept").exists()


def test_what_is_only_signed_is_held_against_the_counter_all_the_same(machine):
    machine.start(bundle="edge.bundle")
    subprocess.run(["umount", "-R", machine.root], check=True)
    with machine.enrolled.tpm() as tpm:
        made = machine.enrolled.enrolment.counter
        counter.advance_counter(tpm, made.index, made.base + 2)
    assert machine.refused(bundle="edge.bundle") == "rollback"


def test_without_a_key_nothing_starts(machine):
    (machine.keys / "k.pub").unlink()
    assert machine.refused() == "no-key"
    (machine.keys / "other.pub").write_bytes(Path("other.pub").read_bytes())
    assert machine.refused() == "signature-missing"


def test_a_revoked_key_starts_nothing(machine):
    Path(machine.config.revoked, "k.pub").write_bytes(Path("k.pub").read_bytes())
    assert machine.refused() == "key-revoked"


def test_a_machine_of_one_name_starts_no_other(machine):
    assert machine.refused(name="other") == "signature-other-name"
    machine.start(name="edge")


def test_several_signatures_can_be_asked_for(machine):
    (machine.keys / "other.pub").write_bytes(Path("other.pub").read_bytes())
    assert machine.refused(threshold=2) == "signature-threshold"


def test_a_second_start_without_a_reboot_opens_nothing(machine, tpm):
    machine.start()
    subprocess.run(["umount", "-R", machine.root], check=True)
    assert machine.refused() == "pcr-mismatch"
    tpm.reboot()
    machine.start()


def test_a_kernel_that_checks_nothing_is_refused_unless_that_is_allowed(machine):
    if has_feature("fs-verity"):
        pytest.skip("this kernel has fs-verity")
    assert machine.refused(allow_insecure=False) == "kernel-feature"


def test_a_bundle_that_is_not_there_is_an_error(machine):
    with pytest.raises(OSError, match=r"gone\.bundle"):
        machine.start(bundle="gone.bundle")


def test_another_bundle_by_a_trusted_key_is_refused_where_a_name_is_asked_for(machine, run):
    Path("other.toml").write_text(RECIPE.replace('name = "edge"', 'name = "other"'))
    assert run("build", "other.toml").status == 0
    (machine.disk / "other.bundle").write_bytes(Path("out/other-1.bundle").read_bytes())
    assert machine.refused(bundle="other.bundle", name="edge") == "signature-other-name"
    machine.start(bundle="other.bundle", name="other")


class Entered(Exception):  # noqa: N818 (it is none)
    """The agent becomes a shell."""


def fail(config):
    boot._fail(config, boot.Ports(), boot_report.failure(OSError(2, "gone")))


@pytest.fixture
def ending(monkeypatch, tmp_path):
    """Let an agent that fails raise what it does, and think that the failure was told."""

    def shell(*_):
        raise Entered("shell")

    def power_off():
        raise Entered("off")

    monkeypatch.setattr(os, "execve", shell)
    monkeypatch.setattr(boot.early, "power_off", power_off)
    monkeypatch.setattr(boot_systemd, "TOLD", tmp_path)


@pytest.mark.usefixtures("ending")
@pytest.mark.parametrize("agent", [fail, boot_systemd._failed])
@pytest.mark.parametrize("tpm_is", ["there", "absent", "another"])
def test_who_gets_a_shell_gets_no_secrets_and_without_the_tpm_no_shell(machine, tpm, tmp_path, agent, tpm_is):
    """The state that things are sealed to must be gone when somebody can type."""
    config = msgspec.structs.replace(machine.config, on_failure="shell")
    with contextlib.ExitStack() as others:
        if tpm_is == "absent":
            config = msgspec.structs.replace(config, tpm="swtpm:/nowhere")
        if tpm_is == "another":
            another = others.enter_context(swtpm.running(tmp_path / "another"))
            Enrolled(another)
            config = msgspec.structs.replace(config, tpm=another.name)
        with pytest.raises(Entered, match="shell" if tpm_is == "there" else "off"):
            agent(config)
    if tpm_is == "there":
        assert machine.refused() == "pcr-mismatch"
        tpm.reboot()
    machine.start()


@pytest.fixture
def for_any_machine(machine, run):
    """Put a bundle on the disk that names no machine."""
    Path("edge.toml").write_text(
        RECIPE.split("[targets.bundle.seal]", maxsplit=1)[0].replace("sealed", "signed")
    )
    assert run("build", "edge.toml").status == 0
    (machine.disk / "edge.bundle").write_bytes(Path("out/edge-1.bundle").read_bytes())
    assert b'"target":null' in Path("out/edge-1.bundle.json").read_bytes()


@pytest.mark.usefixtures("for_any_machine")
def test_a_machine_that_knows_itself_is_not_told_by_others_that_pcr_15_was_extended(machine, monkeypatch):
    def between(name):
        return Transport(name, Between(open_transport(name), change=swallowed))

    monkeypatch.setattr(boot_bundle, "open_transport", between)
    assert machine.refused(bundle="edge.bundle") == "tpm-response"


@pytest.mark.usefixtures("for_any_machine")
def test_a_machine_that_knows_itself_holds_bundles_that_name_none_against_its_counter(machine):
    machine.start(bundle="edge.bundle")
    subprocess.run(["umount", "-R", machine.root], check=True)
    with machine.enrolled.tpm() as tpm:
        made = machine.enrolled.enrolment.counter
        counter.advance_counter(tpm, made.index, made.base + 2)
    assert machine.refused(bundle="edge.bundle") == "rollback"


def test_secrets_go_where_the_configuration_says_and_no_core_dump_has_them(machine, run):
    Path("psk").write_text("correct horse")
    Path("psk").chmod(0o600)
    recipe = RECIPE.replace('level = "sealed"', 'level = "sealed"\nsecrets = { psk = "psk" }')
    Path("edge.toml").write_text(recipe)
    assert run("build", "edge.toml").status == 0
    for suffix in ("cfsb", "policy.json"):
        (machine.disk / f"edge.{suffix}").write_bytes(Path(f"out/edge-1.{suffix}").read_bytes())
    library = ctypes.CDLL(None)
    library.prctl(_SET_DUMPABLE, 1, 0, 0, 0)
    machine.start()
    assert Path(machine.config.secrets, "psk").read_text() == "correct horse"
    assert library.prctl(_GET_DUMPABLE, 0, 0, 0, 0) == 0


def test_where_nobody_can_type_a_pin_it_is_said_that_one_is_missing(machine, run, monkeypatch):
    def nobody(_):
        raise EOFError

    Path("pin").write_text("2580")
    Path("pin").chmod(0o600)
    Path("edge.toml").write_text(RECIPE + 'pin = "pin"\n')
    assert run("build", "edge.toml").status == 0
    for suffix in ("cfsb", "policy.json"):
        (machine.disk / f"edge.{suffix}").write_bytes(Path(f"out/edge-1.{suffix}").read_bytes())
    monkeypatch.setattr("getpass.getpass", nobody)
    assert machine.refused() == "pin-missing"


def test_no_pin_goes_to_a_tpm_that_is_another_one(machine, run, monkeypatch, tmp_path):
    """What stands between a machine and its TPM would learn it."""
    monkeypatch.setattr("getpass.getpass", lambda _: pytest.fail("it was asked for"))
    with swtpm.running(tmp_path / "other") as other:
        Path("m.json").write_bytes(enrolment.encode(Enrolled(other).enrolment))
    Path("pin").write_text("2580")
    Path("pin").chmod(0o600)
    Path("mine.json").write_bytes(enrolment.encode(machine.enrolled.enrolment))
    Path("edge.toml").write_text(RECIPE.replace("m.json", "mine.json") + 'pin = "pin"\n')
    assert run("build", "edge.toml").status == 0
    for suffix in ("cfsb", "policy.json"):
        (machine.disk / f"edge.{suffix}").write_bytes(Path(f"out/edge-1.{suffix}").read_bytes())
    assert machine.refused() == "srk-name"
