"""One digest, whatever the machine, the user and the moment: a matrix of environments.

Every axis is varied alone; then sets of values are chosen so that every two values of two axes meet once.
"""

from __future__ import annotations

import itertools
import locale
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from console_blocks import ROOT

RECIPE = """
[image]
name = "m"
epoch = 1767225600
[nodes.data]
kind = "tree"
source = "data"
target = "/data"
owner = "app"
preserve = ["mtime"]
rules = [{ match = "**/*.sh", mode = "0755" }]
[nodes.users]
kind = "accounts"
users = [{ name = "app", uid = 990, home = "/home/app", create_home = true }]
[nodes.motd]
kind = "file"
target = "/etc/motd"
content = "{{ ['I', 'i'] | map('lower') | sort | join }} {{ '\\u0131' | upper }}\\n"
[nodes.cut]
kind = "remove"
needs = ["data"]
paths = ["/data/d1/**/*.tmp"]
[nodes.rights]
kind = "attributes"
needs = ["data"]
rules = [{ match = "/data/**/*.sh", capabilities = "cap_net_raw+ep", xattrs = { "user.a" = "1", "user.B" = "2" } }]
"""

AXES: dict[str, tuple[str, ...]] = {
    "locale": ("C", "C.UTF-8", "tr_TR.UTF-8"),
    "TZ": ("UTC", "Asia/Kathmandu"),
    "umask": ("022", "000", "077"),
    "user": ("this", "nobody"),
    "checkout": ("a", "some where/deep\u00e9r/down"),
    "cwd": ("checkout", "root"),
    "hash seed": ("0", "1", "random"),
    "jobs": ("2", "1", "8"),
    "file system": ("here", "tmpfs", "ext4", "xfs", "btrfs"),
    "order": ("sorted", "shuffled"),
    "native": ("1", "0"),
    "store": ("cold", "warm", "partly warm"),
    "input": ("directory", "archive"),
}
FIRST = {axis: values[0] for axis, values in AXES.items()}
QUICK = ("TZ", "umask", "cwd", "hash seed", "jobs", "native", "store", "input")
MAKE = {"ext4": ["mkfs.ext4", "-q"], "xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"]}

Setting = Mapping[str, str]


def names() -> list[tuple[str, bytes]]:
    """Return the files of the source tree, in one order; contents on both sides of every limit."""
    odd = [
        "I",
        "i",
        "\u0131",
        "ß",
        "B",
        "a",
        ".hidden",
        "with space",
        "x.tmp",
        "run.sh",
        "e\u0301",
        "\u00e9",
        "z" * 200,
    ]
    sizes = [0, 1, 64, 65, 4095, 4096, 4097, 130_000]
    found = []
    for number, (directory, name) in enumerate(itertools.product(("d1", "d2/sub", "D1"), odd)):
        size = sizes[number % len(sizes)]
        found.append((f"{directory}/{name}", (f"{number} ".encode() * size)[:size]))
    return found


def make_project(place: Path, setting: Setting) -> Path:
    """Write recipe and sources below `place`, in the order and form that the setting names."""
    files = names()
    if setting["order"] == "shuffled":
        random.Random(7).shuffle(files)
    directory = place / setting["checkout"]
    source = directory / "data"
    for name, content in files:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755 if name.endswith(".sh") else 0o644)
        os.utime(path, ns=(0, 1_600_000_000_000_000_000))
    (source / "d2/link").symlink_to("../d1/I")
    os.utime(source / "d2/link", ns=(0, 1_600_000_000_000_000_000), follow_symlinks=False)
    os.link(source / "d2/sub/B", source / "d2/sub/hardlink")
    recipe = RECIPE
    if setting["input"] == "archive":
        _archive(source, directory / "data.tar")
        shutil.rmtree(source)
        recipe = RECIPE.replace(
            'kind = "tree"\nsource = "data"', 'kind = "archive"\nsource = "data.tar"\ngroup = "root"'
        )
        recipe = recipe.replace('preserve = ["mtime"]\nrules = [{ match = "**/*.sh", mode = "0755" }]\n', "")
    (directory / "m.toml").write_text(recipe)
    return directory


def _archive(source: Path, archive: Path) -> None:
    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.mode = 0o755 if member.isdir() else member.mode
        return member

    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(source, arcname=".", filter=plain)


@contextmanager
def file_system(kind: str, place: Path) -> Iterator[Path]:
    """Yield an empty directory on a file system of a kind; skip the test where there is none."""
    place.mkdir()
    if kind == "here":
        yield place
        return
    if os.geteuid() != 0:
        pytest.skip(f"only root can mount a {kind}")
    command = ["mount", "-t", "tmpfs", "tmpfs", str(place)]
    if kind != "tmpfs":
        if shutil.which(MAKE[kind][0]) is None:
            pytest.skip(f"{MAKE[kind][0]} is not installed")
        disk = place.with_suffix(".disk")
        with disk.open("wb") as file:
            file.truncate(400 << 20)
        subprocess.run([*MAKE[kind], disk], check=True, capture_output=True)
        command = ["mount", "-o", "loop", str(disk), str(place)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount {kind}: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def has_locale(name: str) -> bool:
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error:
        return False
    finally:
        locale.setlocale(locale.LC_ALL, before)
    return True


def _command(setting: Setting, directory: Path, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "cfsbuild.cli.main", *arguments]
    if setting["user"] == "nobody":
        if os.geteuid() != 0 or shutil.which("setpriv") is None:
            pytest.skip("becoming another user needs root and setpriv")
        become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        probe = [*become, sys.executable, "-c", "import cfsbuild"]
        if subprocess.run(probe, check=False, capture_output=True).returncode:
            pytest.skip("another user cannot reach this interpreter and this checkout")
        command = [*become, *command]
    return ["sh", "-c", f'umask {setting["umask"]}; exec "$@"', "sh", *command]


def run(setting: Setting, directory: Path, home: Path, *extra: str) -> str:
    """Build the project; return the image's digest."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LC_ALL": setting["locale"],
        "TZ": setting["TZ"],
        "PYTHONHASHSEED": setting["hash seed"],
        "CFSBUILD_NATIVE": setting["native"],
        "PYTHONPATH": str(ROOT),
    }
    recipe, cwd = (
        ("m.toml", directory) if setting["cwd"] == "checkout" else (str(directory / "m.toml"), Path("/"))
    )
    places = ("--store", str(home / "store"), "--output", str(home / "out"))
    command = _command(setting, directory, "build", "-q", "-j", setting["jobs"], *places, *extra, recipe)
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()[0]


def build(setting: Setting, place: Path) -> str:
    """Build in one environment, from a store as warm as the setting says."""
    if setting["locale"] != "C" and not has_locale(setting["locale"]):
        pytest.skip(f"the locale {setting['locale']} is not installed")
    with ExitStack() as stack:
        top = stack.enter_context(file_system(setting["file system"], place / "top"))
        directory = make_project(top, setting)
        home = top / "home"
        home.mkdir()
        if setting["user"] == "nobody":
            home.chmod(0o777)
            for path in (place, *place.parents):
                if path.stat().st_uid == 0 and not path.stat().st_mode & 1:
                    path.chmod(path.stat().st_mode | 0o011)
        if setting["store"] != "cold":
            first = run(setting, directory, home)
            if setting["store"] == "warm":
                assert run(setting, directory, home, "--force") == first
            else:
                (victim,) = list((home / "store/objects").glob("*/*"))[:1]
                victim.unlink()
                shutil.rmtree(home / "out")
        return run(setting, directory, home)


@pytest.fixture(scope="module")
def digest(tmp_path_factory) -> str:
    return build(FIRST, tmp_path_factory.mktemp("first"))


def pairwise(axes: Mapping[str, tuple[str, ...]]) -> list[dict[str, str]]:
    """Choose settings greedily so that any two values of any two axes meet in one of them."""
    open_pairs = {
        frozenset({(a, x), (b, y)})
        for a, b in itertools.combinations(axes, 2)
        for x, y in itertools.product(axes[a], axes[b])
    }
    chosen = []
    while open_pairs:
        setting = dict(sorted(min(open_pairs, key=sorted)))
        for axis in axes:
            if axis not in setting:
                setting[axis] = max(
                    axes[axis],
                    key=lambda v, axis=axis: sum(
                        frozenset({(axis, v), old}) in open_pairs for old in setting.items()
                    ),
                )
        open_pairs -= {frozenset(pair) for pair in itertools.combinations(setting.items(), 2)}
        chosen.append(setting)
    return chosen


def test_the_pairs_cover_every_two_values():
    chosen = pairwise(AXES)
    for a, b in itertools.combinations(AXES, 2):
        met = {(setting[a], setting[b]) for setting in chosen}
        assert met == set(itertools.product(AXES[a], AXES[b]))
    assert len(chosen) < 40


ALONE = [(axis, value) for axis, values in AXES.items() for value in values[1:]]


@pytest.mark.parametrize(
    ("axis", "value"),
    [
        pytest.param(axis, value, marks=() if axis in QUICK and value == AXES[axis][-1] else pytest.mark.slow)
        for axis, value in ALONE
    ],
)
def test_the_digest_does_not_depend_on(axis, value, digest, tmp_path):
    assert build(FIRST | {axis: value}, tmp_path) == digest


@pytest.mark.slow
@pytest.mark.parametrize("setting", pairwise(AXES), ids=lambda s: "-".join(s.values()).replace("/", "_"))
def test_the_digest_is_the_same_in(setting, digest, tmp_path):
    assert build(setting, tmp_path) == digest


def test_the_digest_does_depend_on_what_the_image_is(digest, tmp_path):
    directory = make_project(tmp_path, FIRST)
    (directory / "data/d1/I").write_bytes(b"other")
    assert run(FIRST, directory, tmp_path) != digest
