"""The machine's configuration and its reports: strict, whoever wrote them."""

import ast
import os
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfsbuild.deploy import boot_config, boot_report
from cfsbuild.deploy.boot_config import BootConfig, StateDevice
from cfsbuild.errors import InputError, VerificationError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/formats/boot.md").read_text()
ON_THE_WAY = {
    "cli": ("boot",),
    "fsverity": ("kernel",),
    "deploy": (
        "boot_bundle",
        "boot_config",
        "boot_report",
        "bundle_file",
        "bundle_mount",
        "by_bundle",
        "early",
        "kernel_features",
        "machine_check",
        "mount",
        "provision",
        "secrets",
        "state",
    ),
    "trust": (
        "bundle",
        "canonical",
        "counter",
        "dsse",
        "explanation",
        "files",
        "key_files",
        "keys",
        "sealed",
        "statement",
        "storage_key",
        "unseal_policy",
        "unsealing",
    ),
    "trust/tpm": (
        "commands",
        "connection",
        "nv",
        "offline",
        "pcr",
        "response_codes",
        "session",
        "transport",
        "wire",
    ),
}
NEVER_ON_A_MACHINE = {
    *("bundle", "payload", "policy", "secret", "signatures", "slots", "format"),  # of who builds
    *("key-exists", "key-id", "key-public", "key-readable", "name", "passphrase"),  # of who signs
    *(
        "boot-report",
        "signature-other-image",
        "counter-far",
        "counter-index",
        "owner-auth",
        "tpm-command",
        "tpm-name",
    ),  # of other verbs
}

CONFIG = BootConfig(state=StateDevice(device="/dev/vda"), bundle="edge.cfsb")


def test_a_configuration_survives_being_written():
    other = BootConfig(
        state=StateDevice(device="/dev/sda2", filesystem="f2fs", seconds=5),
        bundle="bundles/a.bundle",
        threshold=2,
        tpm="/dev/tpmrm0",
        enrolment="/etc/cfsbuild/enrolment.json",
    )
    for config in (CONFIG, other):
        assert boot_config.decode(boot_config.encode(config)) == config


def changed(**fields):
    return msgspec.json.encode(msgspec.to_builtins(CONFIG) | fields)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100000,
        changed(unknown=1),
        changed(v=2),
        changed(type="cfsbuild.image"),
        changed(bundle=None),
        changed(threshold=0),
        changed(keys="keys"),
        changed(exec=[]),
        changed(exec=["/bin/a\0b"]),
        changed(state={"device": "vda"}),
        changed(state={"device": "/dev/vda", "seconds": 100000}),
        changed(state={"device": "/dev/vda", "filesystem": "../ext4"}),
        changed(on_failure="ignore"),
        changed(report="../port"),
        *(
            changed(bundle=bundle)
            for bundle in ("", "/etc/passwd", "..", "../x", "a/../../x", "a/..", ".", "a\0", "a\n/../../x")
        ),
        boot_config.encode(CONFIG) + b" " * (1 << 16),
    ],
)
def test_anything_else_is_refused(data):
    with pytest.raises(InputError) as caught:
        boot_config.decode(data)
    assert caught.value.reason == "boot-config"


def test_names_that_only_begin_with_dots_are_names():
    for bundle in ("..a/b", ".hidden", "a/...", "a.."):
        assert boot_config.decode(changed(bundle=bundle))


def test_a_missing_configuration_is_named(tmp_path):
    with pytest.raises(InputError, match=r"boot.json: No such file"):
        boot_config.read(tmp_path / "boot.json")


def test_an_error_becomes_a_report_that_fits():
    error = VerificationError("b" * 5000, details="d" * 9000, reason="image-digest")
    report = boot_report.failure(error)
    assert boot_report.decode(boot_report.encode(report)) == report
    assert (report.reason, report.exit_code) == ("image-digest", 5)
    told = boot_report.failure(OSError(2, "No such file or directory", "/x"))
    assert (told.brief, told.exit_code) == ("/x: No such file or directory", 7)


def test_what_is_called_by_bytes_that_are_no_text_can_be_reported():
    name = os.fsdecode(b"\xff\0" * 5000)
    for error in (VerificationError(name, details=name), OSError(2, "No such file or directory", name)):
        report = boot_report.failure(error)
        assert boot_report.decode(boot_report.encode(report)) == report
        assert report.brief.startswith(r"\udcff")


@given(st.binary(max_size=200))
def test_whatever_a_machine_sends_is_a_report_or_an_error(data):
    try:
        report = boot_report.decode(data)
    except InputError as error:
        found = error.reason
    else:
        found = report.type
    assert found in {"boot-report", "cfsbuild.boot-report"}


@pytest.mark.parametrize(
    "line",
    [b'{"event":"exited","status":256}', b'{"event":"other"}', b'{"event":"exited","x":1}', b" " * (1 << 17)],
)
def test_reports_of_another_form_are_refused(line):
    with pytest.raises(InputError):
        boot_report.decode(line)


def rows(page):
    """Return what stands in the first column of each table, the words in code of a row together."""
    return [re.findall(r"`([^`]+)`", cell) for cell in re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE)]


def test_the_page_describes_every_field():
    described = {row[0] for row in rows(PAGE.partition("## What happens")[0])}
    fields = {field.name for field in msgspec.structs.fields(BootConfig)} - {"state"}
    state = {f"state.{field.name}" for field in msgspec.structs.fields(StateDevice)}
    assert described == fields | state


def test_the_example_of_the_page_is_a_configuration():
    (example,) = re.findall(r"^    (\{.*\})$", PAGE, re.MULTILINE)
    assert boot_config.decode(example.encode()).bundle == "edge.cfsb"


def reasons_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "reason" and isinstance(node.value, ast.Constant):
            yield node.value.value


def test_the_page_gives_every_reason_for_which_a_machine_does_not_start():
    paths = [ROOT / f"cfsbuild/{room}/{name}.py" for room, names in ON_THE_WAY.items() for name in names]
    found = {reason for path in paths for reason in reasons_of(path)}
    section = PAGE.partition("## Reasons")[2].partition("## With systemd")[0]
    told = set(re.findall(r"`([a-z][a-z-]+)`", section))
    assert told == found - {""} - NEVER_ON_A_MACHINE | {"os"}


def test_the_page_gives_the_reasons_of_machines_that_systemd_starts():
    section = PAGE.partition("## With systemd")[2].partition("## Reports")[0]
    found = set(reasons_of(ROOT / "cfsbuild/cli/boot_systemd.py"))
    assert {row[0] for row in rows(section)} == found
