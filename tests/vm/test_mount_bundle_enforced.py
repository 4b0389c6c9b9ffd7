"""A signed bundle on a kernel with fs-verity: what it names is mounted and checked, everything else is refused."""

import json
from pathlib import Path

import pytest
import vm

pytestmark = [pytest.mark.vm, pytest.mark.slow]

RECIPE = """\
[image]
name = "edge"
version = "@V@"
epoch = 1767225600
[nodes.dirs]
kind = "dir"
target = "/etc"
[nodes.var]
kind = "dir"
target = "/var"
[nodes.identity]
kind = "file"
target = "/etc/machine-id"
content = ""
[nodes.greeting]
kind = "file"
target = "/greeting"
content = "{{ 'hello from version @V@, too long to be inline ' * 9 }}"
[targets.bundle]
generation = @V@
sign = ["/tmp/k.key"]
[targets.bundle.state]
etc = "transient"
var = "persistent"
"""

# `attempt NAME ...` mounts by the bundle, and prints the exit status, the reason, and whether anything is mounted.
SCRIPT = """\
export HOME=/tmp LC_ALL=C.UTF-8 CFSBUILD_STORE=/vdisk/store
cfsbuild() { $PYTHON -P -m cfsbuild.cli.main "$@"; }
mkdir -p /tmp/r /mnt; cd /tmp/r
reason() { $PYTHON -c 'import json, sys
try: print(json.load(open(sys.argv[1]))["error"]["reason"])
except Exception: print("-")' $1; }
attempt() {
    name=$1; shift
    cfsbuild mount --json --base /vdisk/store --key /tmp/k.pub "$@" /mnt >/tmp/out 2>/tmp/err; status=$?
    mounted=no; grep -q ' /mnt ' /proc/mounts && mounted=yes
    echo "RESULT $name $status $(reason /tmp/err) $mounted"
    [ $status = 0 ] || cat /tmp/err; cat /tmp/out
}
leave() { umount /mnt/etc /mnt/var 2>/dev/null; umount /mnt; }
cfsbuild key new /tmp/k; cfsbuild key new /tmp/other
cat >recipe.toml <<'END'
RECIPE
END
sed 's/@V@/7/' recipe.toml >7.toml; sed 's/@V@/8/' recipe.toml >8.toml
cfsbuild store init /vdisk/store
hex=$(cfsbuild build 7.toml | head -n 1 | cut -c1-64); other=$(cfsbuild build 8.toml | head -n 1 | cut -c1-64)
path() { echo /vdisk/store/objects/$(echo $1 | cut -c1-2)/$(echo $1 | cut -c3-); }
bundle=out/edge-7.bundle

attempt happy --bundle $bundle
cat /mnt/greeting >/dev/null; echo "RESULT read $? - -"
echo "RESULT require $(grep -c 'verity=require' /proc/mounts) - -"
cat /mnt/etc/machine-id; echo kept >/mnt/var/kept; echo gone >/mnt/etc/gone; echo x >/mnt/x; echo "RESULT write-root $? - -"
first=$(cat /mnt/etc/machine-id); leave
attempt again --bundle $bundle
echo "RESULT state $(cat /mnt/var/kept) $(ls /mnt/etc/gone 2>/dev/null || echo gone) $([ "$first" = "$(cat /mnt/etc/machine-id)" ] && echo same)"
leave
# The daily work of another key, another name, an older one.
attempt other-key --key /tmp/other.pub --threshold 2 --bundle $bundle
attempt rollback --least-generation 8 --bundle $bundle
# An image flipped on disk has no verity any more; another genuine one in its place has another digest.
cp $(path $hex) /tmp/image
rm -f $(path $hex); cp /tmp/image $(path $hex)
attempt image-without-verity --bundle $bundle
rm -f $(path $hex); $PYTHON -c 'd = bytearray(open("/tmp/image", "rb").read()); d[5000] ^= 1
import sys; open(sys.argv[1], "wb").write(d)' $(path $hex)
fsverity enable $(path $hex)
attempt image-flipped --bundle $bundle
rm -f $(path $hex); cp $(path $other) $(path $hex); fsverity enable $(path $hex)
attempt image-replaced --bundle $bundle
rm -f $(path $hex); attempt image-missing --bundle $bundle
cp /tmp/image $(path $hex); fsverity enable $(path $hex)
attempt image-back --bundle $bundle; leave
# An object swapped, then flipped below the file system.
greeting=$(grep -l 'version 7' /vdisk/store/objects/*/* | head -n 1)
cp $greeting /tmp/greeting; rm -f $greeting; sed s/hello/HELLO/ /tmp/greeting >$greeting; fsverity enable $greeting
attempt object-swapped --bundle $bundle; cat /mnt/greeting >/dev/null 2>/tmp/err; echo "RESULT read-swapped $? - -"; cat /tmp/err; leave
rm -f $greeting; cp /tmp/greeting $greeting
attempt object-without-verity --bundle $bundle; cat /mnt/greeting >/dev/null; echo "RESULT read-without $? - -"; leave
fsverity enable $greeting
attempt object-back --bundle $bundle; cat /mnt/greeting >/dev/null; echo "RESULT read-back $? - -"; leave
# The fallback for those without our program: the commands of the mount spec.
$PYTHON - <<'END'
import json, subprocess
document = json.load(open("out/edge-7.mount.json"))
for command in document["commands"]:
    command = [part.replace("/state/objects", "/vdisk/store/objects").replace("/sysroot", "/mnt") for part in command]
    done = subprocess.run(command, capture_output=True, text=True)
    print(command, done.returncode, done.stdout, done.stderr)
    assert command[0] != "fsverity" or document["spec"]["digest"] in done.stdout
END
cat /mnt/greeting >/dev/null; echo "RESULT by-commands $? - -"; umount /mnt
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    vm.require()
    work = tmp_path_factory.mktemp("bundle")
    vm.make_disk(Path(work / "disk"))
    outcome = vm.boot(SCRIPT.replace("RECIPE\n", RECIPE), disk=work / "disk", work=work)
    lines = [line.split()[1:] for line in outcome.output.splitlines() if line.startswith("RESULT ")]
    return {line[0]: line[1:] for line in lines}, outcome.output


def test_what_was_signed_is_mounted_and_enforced(results):
    found, output = results
    assert found["happy"] == ["0", "-", "yes"], output
    assert found["read"][0] == "0"
    assert found["require"][0] == "1"
    document = next(json.loads(line) for line in output.splitlines() if '"generation":7' in line)
    assert document["enforced"] is True


def test_the_tree_is_read_only_and_state_is_what_was_decided(results):
    assert results[0]["write-root"][0] != "0"
    assert results[0]["state"] == ["kept", "gone", "same"]


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        ("other-key", "signature-threshold"),
        ("rollback", "rollback"),
        ("image-without-verity", "image-no-verity"),
        ("image-flipped", "image-digest"),
        ("image-replaced", "image-digest"),
        ("image-missing", "image-missing"),
    ],
)
def test_each_way_of_cheating_with_the_image_is_refused_and_nothing_is_mounted(results, attempt, reason):
    found, output = results
    if attempt == "image-replaced" and found[attempt][1] == "image-size":
        reason = "image-size"
    assert found[attempt] == ["5", reason, "no"], output


def test_a_swapped_object_cannot_be_read(results):
    assert results[0]["object-swapped"] == ["0", "-", "yes"]
    assert results[0]["read-swapped"][0] != "0"
    assert results[0]["read-without"][0] != "0"
    assert "Input/output error" in results[1]


def test_what_is_put_right_again_is_mounted_again(results):
    assert results[0]["image-back"] == ["0", "-", "yes"]
    assert results[0]["read-back"][0] == "0"


def test_the_commands_of_the_mount_spec_mount_the_same(results):
    assert results[0]["by-commands"][0] == "0"
