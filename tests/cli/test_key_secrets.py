"""Where a private key and its passphrase must not be: anywhere but in their own files."""

import base64
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cfsbuild.trust.key_files import read_private_key

PASSPHRASE = b"canary of 4f1c9e"
RECIPE = '[image]\nname = "app"\nversion = "3"\n[nodes.f]\nkind = "file"\ntarget = "/f"\ncontent = "x"\n'
HOOK = """#!/bin/bash
# What a command that signs can see: its own process and the one that started it.
{
    for process in self $PPID; do cat /proc/$process/environ /proc/$process/cmdline; ls -l /proc/$process/fd; done
    cat /proc/self/fd/[3-9]*
} > seen 2>&1
cat > message
openssl pkeyutl -sign -rawin -inkey plain.key -in message
"""


@pytest.fixture
def cfsbuild(lab, monkeypatch):
    """Run the program in a process of its own, with a temporary directory of its own; return all that it says."""
    temporary = lab.directory.parent / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    said = bytearray()

    def call(*arguments, status=0, **options):
        command = [sys.executable, "-m", "cfsbuild", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, check=False, **options)
        assert done.returncode == status, done.stderr
        said.extend(done.stdout + done.stderr)
        return done

    call.said = said
    return call


@pytest.fixture
def secrets(cfsbuild):
    """Make a key with a passphrase and one without; return every form in which they could be found."""
    Path("passphrase").write_bytes(PASSPHRASE)
    Path("passphrase").chmod(0o600)
    cfsbuild("key", "new", "plain")
    cfsbuild("key", "new", "locked", "--passphrase-file", "passphrase")
    needles = [PASSPHRASE]
    for name in ("plain.key", "locked.key"):
        key = read_private_key(Path(name), lambda: PASSPHRASE)
        raw = key.private_bytes_raw()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        needles += [raw, raw.hex().encode(), base64.b64encode(raw), pem.splitlines()[1]]
    return needles


def test_nothing_but_their_own_files_has_a_key_or_a_passphrase(lab, cfsbuild, secrets):
    Path("app.toml").write_text(RECIPE)
    Path("hook").write_text(HOOK)
    Path("hook").chmod(0o700)
    Path("wrong").write_text("something else")
    Path("wrong").chmod(0o600)
    cfsbuild("build", "app.toml")
    cfsbuild("sign", "app.toml", "--key", "locked.key", "--passphrase-file", "passphrase")
    with Path("passphrase").open("rb") as file:
        fd = file.fileno()
        cfsbuild("sign", "app.toml", "--key", "locked.key", "--passphrase-fd", fd, pass_fds=[fd])
    cfsbuild("sign", "app.toml", "--key", "plain.key")
    cfsbuild("sign", "app.toml", "--with", "./hook", "--public-key", "plain.pub")
    cfsbuild("sign", "-v", "app.toml", "--key", "locked.key", "--passphrase-file", "wrong", status=2)
    cfsbuild("key", "show", "locked.key", "--passphrase-file", "passphrase")
    cfsbuild("verify", "app.toml", "--key", "plain.pub", "--key", "locked.pub", "--threshold", "2")
    assert Path("seen").stat().st_size > 1000
    everything = {path: path.read_bytes() for path in lab.directory.parent.rglob("*") if path.is_file()}
    everything["what was said"] = bytes(cfsbuild.said)
    assert any(path.name.startswith("app-3") for path in everything if isinstance(path, Path))
    allowed = {Path("passphrase").absolute(), Path("plain.key").absolute()}
    found = {str(where) for needle in secrets for where, data in everything.items() if needle in data}
    assert found == {str(path) for path in allowed}


def test_the_search_finds_what_is_there(secrets):
    assert any(needle in Path("plain.key").read_bytes() for needle in secrets)
    assert any(needle in Path("passphrase").read_bytes() for needle in secrets)
    assert len(set(secrets)) == 9


COMMANDS = {
    "nothing": ["key", "show", "plain.pub"],
    "key new": ["key", "new", "more"],
    "key show": ["key", "show", "plain.key"],
    "sign": ["sign", "a.cfs", "--key", "plain.key"],
    "sign --fsverity": ["sign", "a.cfs", "--key", "rsa.key", "--fsverity", "rsa.pem"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_process_that_held_a_key_leaves_no_core(lab, run, name):
    run("key", "new", "plain")
    run("key", "new", "rsa", "--algorithm", "rsa2048")
    subprocess.run(
        ["openssl", "req", "-new", "-x509", "-key", "rsa.key", "-out", "rsa.pem", "-subj", "/CN=x"],
        check=True,
        capture_output=True,
    )
    lab.image()
    program = (
        "import ctypes, os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)\n"
        "from cfsbuild.cli.main import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"  # PR_GET_DUMPABLE
        "print(f'dumpable {dumpable}', file=sys.stderr)\n"
        "os.abort()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, *COMMANDS[name]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    said = child.stderr.read().decode()
    child.stderr.close()
    _, status = os.waitpid(child.pid, 0)
    child.returncode = -signal.SIGABRT
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert f"dumpable {int(name == 'nothing')}" in said
    if name != "nothing":
        assert not os.WCOREDUMP(status)
        assert list(lab.directory.glob("core*")) == []
    for core in lab.directory.glob("core*"):
        core.unlink()  # large, and pytest keeps the directory
