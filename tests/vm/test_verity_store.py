"""A store on a file system with fs-verity: objects get it, the kernel enforces it, every change is seen."""

from pathlib import Path

import pytest
import vm

pytestmark = [pytest.mark.vm, pytest.mark.slow]

RECIPE = """\
[image]
name = "verified"
epoch = 1767225600

[nodes.greeting]
kind = "file"
target = "/greeting"
content = "{{ 'hello from a file that is too long to be inline ' * 9 }}"

[nodes.small]
kind = "file"
target = "/small"
content = "inline"
"""

# `say` prints one line that the tests look for; the rest of the output is for whoever reads a failure.
SCRIPT = """\
say() { echo "RESULT $*"; }
cfsbuild() { $PYTHON -P -m cfsbuild.cli.main "$@"; }
export CFSBUILD_STORE=/vdisk/store HOME=/tmp LC_ALL=C.UTF-8
mkdir -p /tmp/recipe /mnt && cd /tmp/recipe
cat >recipe.toml <<'END'
RECIPE
END
cfsbuild store init /vdisk/store; say init $?
cfsbuild build recipe.toml; say build $?
cd /vdisk/store
count=0
for object in objects/??/*; do
    name=$(echo $object | sed 's,objects/\\(..\\)/,\\1,')
    measured=$(fsverity measure $object | sed 's/sha256:\\([0-9a-f]*\\) .*/\\1/')
    [ "$name" = "$measured" ] && count=$((count + 1))
done
say named-as-measured $count of $(ls objects/??/* | wc -l)
cfsbuild store info --json; say info $?
cfsbuild store fsck; say fsck $?
image=$(readlink -f images/refs/verified)
hex=$(echo $image | sed 's,.*objects/\\(..\\)/,\\1,')
cfsbuild mount --verity require verified /mnt; say mount $?
cat /mnt/greeting >/dev/null; say read $?
cat /mnt/small >/dev/null; say read-inline $?
grep -c verity=require /proc/mounts | sed 's/^/RESULT verity-mounts /'
cfsbuild umount /mnt; say umount $?

cfsbuild mount.composefs -o basedir=/vdisk/store/objects,digest=$hex $image /mnt; say front-end $?
umount /mnt
cfsbuild mount.composefs -o basedir=/vdisk/store/objects,digest=$(echo $hex | tr 0-9 1-90) $image /mnt; say wrong-digest $?

# An object that somebody replaced: its content differs, and it has no verity.
greeting=$(ls objects/??/* | grep -v "$(echo $hex | cut -c3-)" | head -n 1)
cp $greeting /tmp/saved && rm -f $greeting && sed 's/hello/HELLO/' /tmp/saved >$greeting
cfsbuild mount --verity require verified /mnt; cat /mnt/greeting >/dev/null; say replaced $?
umount /mnt
cfsbuild verify verified; say verify $?
cfsbuild store fsck; say fsck-replaced $?

# The right content again, but without verity: the kernel refuses until it is enabled.
rm -f $greeting && cp /tmp/saved $greeting
cfsbuild mount --verity require verified /mnt; cat /mnt/greeting >/dev/null; say without-verity $?
umount /mnt
cfsbuild store enable-verity; say enable $?
cfsbuild mount --verity require verified /mnt; cat /mnt/greeting >/dev/null; say enabled $?
umount /mnt

# A bit flipped on the disk itself, below the file system.
sync
block=$($PYTHON -c 'import fcntl, struct, sys
print(struct.unpack("i", fcntl.ioctl(open(sys.argv[1]), 1, struct.pack("i", 0)))[0])' $greeting)
cd / && umount /vdisk
printf X | dd of=/dev/vda bs=1 seek=$((block * 4096 + 7)) conv=notrunc 2>/dev/null
mount -t ext4 /dev/vda /vdisk
cfsbuild mount --verity require verified /mnt; cat /mnt/greeting >/dev/null; say flipped $?
umount /mnt
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    vm.require()
    work = tmp_path_factory.mktemp("vm")
    disk = work / "disk"
    vm.make_disk(Path(disk))
    outcome = vm.boot(SCRIPT.replace("RECIPE\n", RECIPE), disk=disk, work=work)
    lines = [line for line in outcome.output.splitlines() if line.startswith("RESULT ")]
    return {line.split()[1]: " ".join(line.split()[2:]) for line in lines}, outcome.output


def test_every_object_is_named_by_what_the_kernel_measures(results):
    assert results[0]["build"] == "0"
    assert results[0]["named-as-measured"] == "2 of 2"


def test_the_store_says_that_verity_is_enforced(results):
    assert results[0]["info"] == "0"
    assert results[0]["fsck"] == "0"


def test_a_mount_that_requires_verity_can_be_read(results):
    assert [results[0][name] for name in ("mount", "read", "read-inline", "umount")] == ["0"] * 4
    assert results[0]["verity-mounts"] == "1"


def test_the_front_end_checks_the_images_digest(results):
    assert results[0]["front-end"] == "0"
    assert results[0]["wrong-digest"] == "1"
    assert "Image has wrong fs-verity" in results[1]


def test_a_replaced_object_cannot_be_read_and_is_found(results):
    assert results[0]["replaced"] != "0"
    assert results[0]["verify"] == "5"
    assert results[0]["fsck-replaced"] == "5"


def test_an_object_without_verity_cannot_be_read_until_it_is_enabled(results):
    assert results[0]["without-verity"] != "0"
    assert results[0]["enable"] == "0"
    assert results[0]["enabled"] == "0"


def test_a_bit_flipped_on_the_disk_is_an_io_error(results):
    assert results[0]["flipped"] != "0"
    assert "read error: Input/output error" in results[1]
