import shutil
import subprocess

import pytest

from cfsbuild.build.pipeline import Options, build, make_request
from cfsbuild.erofs.reader import read_image
from cfsbuild.errors import UsageError
from cfsbuild.targets.registry import TARGET_KINDS
from cfsbuild.tree.dump import format_entry

RECIPE = """\
[image]
name = "t"
version = "2"
format = {format}
digest = "{digest}"
epoch = 1000
[nodes.file]
kind = "file"
target = "/usr/bin/tool"
content = "{content}"
mode = "4755"
mtime = 5000
[nodes.link]
kind = "symlink"
target = "/bin"
to = "usr/bin"
[targets.image]
{target}
"""


def make(tmp_path, *, target="", content="x" * 100, version=1, digest="sha256"):
    recipe = tmp_path / "t.toml"
    recipe.write_text(RECIPE.format(target=target, content=content, format=version, digest=digest))
    (result,) = build(
        make_request(recipe, store=tmp_path / "store", output=tmp_path / "out"), Options(), environ={}
    )
    return result, tmp_path / "out"


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_the_dump_is_what_the_image_says(tmp_path, version, digest):
    _, out = make(tmp_path, version=version, digest=digest)
    image = read_image((out / "t-2.cfs").read_bytes())
    assert (image.format, image.algorithm.value) == (version, digest)
    lines = (out / "t-2.dump").read_bytes().splitlines()
    assert lines == list(map(format_entry, image.entries()))


def test_times_later_than_the_epoch_are_clamped_to_it(tmp_path):
    _, out = make(tmp_path)
    (line,) = [
        line for line in (out / "t-2.dump").read_text().splitlines() if line.startswith("/usr/bin/tool ")
    ]
    assert line.split()[7] == "1000.0"


def test_the_digest_is_that_of_the_fsverity_program(tmp_path):
    if shutil.which("fsverity") is None:
        pytest.skip("fsverity is not installed")
    result, out = make(tmp_path)
    done = subprocess.run(
        ["fsverity", "digest", "--compact", str(out / "t-2.cfs")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == result.digest


def test_dump_and_manifest_are_left_out_on_request(tmp_path):
    _, out = make(tmp_path, target="dump = false\nmanifest = false")
    assert [path.name for path in out.iterdir()] == ["t-2.cfs"]


def test_a_store_of_another_algorithm_is_refused_before_anything_runs(tmp_path):
    make(tmp_path)
    with pytest.raises(UsageError, match="sha256") as caught:
        make(tmp_path, digest="sha512")
    assert caught.value.exit_code == 2


def test_the_registry_knows_every_kind_by_its_own_name():
    assert {name: kind.name for name, kind in TARGET_KINDS.items()} == {name: name for name in TARGET_KINDS}
    assert "image" in TARGET_KINDS
    assert "nothing" not in TARGET_KINDS
    assert len(TARGET_KINDS) == len(list(TARGET_KINDS))
