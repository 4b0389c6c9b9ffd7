"""The kernel takes our PKCS#7 signatures of fs-verity digests, and no others."""

import base64
import subprocess

import pytest
import vm

from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.fsverity.digest import digest_bytes
from cfsbuild.trust.fsverity_signature import read_certificate, sign_digest
from cfsbuild.trust.key_files import write_key_pair
from cfsbuild.trust.keys import KeyAlgorithm, generate

pytestmark = [pytest.mark.vm, pytest.mark.slow]

CONTENT = b"an image that somebody signed\n" * 1000

# /proc/keys names the keyring, and add_key(2) is system call 248: no keyctl is needed.
SCRIPT = """\
say() { echo "RESULT $*"; }
cd /vdisk
write() { $PYTHON -c 'import base64, sys; sys.stdout.buffer.write(base64.b64decode(sys.argv[1]))' "$2" >"$1"; }
write content CONTENT; write certificate CERTIFICATE; write signature SIGNATURE
cat >trust.py <<'END'
import ctypes
ring = next(line.split()[0] for line in open("/proc/keys") if " .fs-verity" in line)
data = open("certificate", "rb").read()
libc = ctypes.CDLL(None, use_errno=True)
key = libc.syscall(248, b"asymmetric", b"", data, ctypes.c_size_t(len(data)), int(ring, 16))
raise SystemExit(key < 0 and f"add_key: {ctypes.get_errno()}")
END
cp content one; cp content two; (cat content; echo more) >other
fsverity enable one --signature=signature; say untrusted $?
$PYTHON trust.py; say trusted $?
fsverity enable one --signature=signature; say signed $?
fsverity enable other --signature=signature; say other $?
head -c 40 signature >short; fsverity enable two --signature=short; say short $?
cat one | cmp - content; say read $?
fsverity measure one; say measure $?
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    vm.require()
    work = tmp_path_factory.mktemp("signed")
    private, _ = write_key_pair(work / "k", key := generate(KeyAlgorithm.RSA2048))
    certificate = work / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-new", "-x509", "-key", private, "-out", certificate, "-subj", "/CN=images"],
        check=True,
        capture_output=True,
    )
    der = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-outform", "DER"], check=True, capture_output=True
    ).stdout
    digest = digest_bytes(CONTENT, Algorithm.SHA256)
    signature = sign_digest(key, read_certificate(certificate), digest, Algorithm.SHA256)
    script = SCRIPT
    for name, data in (("CONTENT", CONTENT), ("CERTIFICATE", der), ("SIGNATURE", signature)):
        script = script.replace(name, base64.b64encode(data).decode(), 1)
    vm.make_disk(work / "disk")
    outcome = vm.boot(script, disk=work / "disk", work=work)
    lines = [line for line in outcome.output.splitlines() if line.startswith("RESULT ")]
    return {line.split()[1]: line.split()[2] for line in lines}, outcome.output, digest.hex()


def test_a_signature_by_a_key_that_the_kernel_trusts_is_taken(results):
    assert results[0]["trusted"] == "0"
    assert results[0]["signed"] == "0"
    assert results[0]["read"] == "0"
    assert f"sha256:{results[2]}" in results[1]


def test_without_the_key_with_other_content_or_cut_off_it_is_refused(results):
    assert results[0]["untrusted"] != "0"
    assert "Required key not available" in results[1]
    assert results[0]["other"] != "0"
    assert "Key was rejected by service" in results[1]
    assert results[0]["short"] != "0"
