"""One digest, whatever surrounds the build."""

import os
import shutil
import subprocess
import sys

import pytest

RECIPE = """\
[image]
name = "demo"
version = "1"
[nodes.tree]
kind = "tree"
source = "{source}"
target = "/opt"
[nodes.etc]
kind = "dir"
target = "/etc"
[nodes.users]
kind = "accounts"
needs = ["etc"]
users = [{{ name = "app", uid = 990, home = "/" }}]
[nodes.rules]
kind = "attributes"
needs = ["tree", "users"]
rules = [{{ match = "/opt/**/b*", mode = "0600" }}]
"""

NAMES = ["b", "a", "c/d/e", "c/b1", "ü", "c/ -x", "B"]


def make_source(root, names):
    for name in names:
        path = root / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 50)
    (root / "tree" / "link").symlink_to("a")


def make_project(root, names=NAMES, source="tree"):
    root.mkdir(parents=True)
    make_source(root, names)
    (root / "r.toml").write_text(RECIPE.format(source=source))
    return root


def digest(root, *options, umask=0o022, cwd=None, **environ):
    store = root / "store"
    done = subprocess.run(
        [sys.executable, "-m", "cfsbuild.cli.main", "-q", "build", str(root / "r.toml"), "--output", str(root / "out"),
         "--store", str(store), *options],
        cwd=cwd or root, capture_output=True, text=True, check=False, umask=umask,
        env={"PATH": os.environ["PATH"], "HOME": str(root)} | environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[0]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return digest(make_project(tmp_path_factory.mktemp("first") / "project"))


@pytest.mark.parametrize(
    "surroundings",
    [
        {"LC_ALL": "C", "TZ": "Pacific/Kiritimati"},
        {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"},
        {"PYTHONHASHSEED": "4242", "PYTHONUTF8": "0"},
        {"umask": 0o077},
        {"umask": 0},
        {"CFSBUILD_NATIVE": "0"},
        {"cwd": "/"},
    ],
    ids=lambda value: " ".join(f"{key}={item}" for key, item in value.items()),
)
def test_the_surroundings_do_not_shape_the_image(tmp_path, expected, surroundings):
    assert digest(make_project(tmp_path / "elsewhere" / "p"), **surroundings) == expected


@pytest.mark.parametrize("jobs", ["1", "7"])
def test_the_number_of_jobs_does_not_shape_the_image(tmp_path, expected, jobs):
    assert digest(make_project(tmp_path / "p"), "-j", jobs) == expected


def test_the_order_in_which_files_were_made_does_not_shape_the_image(tmp_path, expected):
    assert digest(make_project(tmp_path / "p", list(reversed(NAMES)))) == expected


def test_a_warm_build_gives_what_a_cold_one_gives(tmp_path, expected):
    project = make_project(tmp_path / "p")
    assert digest(project) == expected
    shutil.rmtree(project / "out")
    assert digest(project) == expected
    assert digest(project, "-f") == expected


def test_a_checkout_by_another_user_with_another_umask_gives_the_same_image(tmp_path, expected):
    project = make_project(tmp_path / "p")
    for path in (project / "tree").rglob("*"):
        if not path.is_symlink():
            os.utime(path, (1, 1))
            path.chmod(0o700 if path.is_dir() else 0o600)
            if os.geteuid() == 0:
                os.chown(path, 1234, 1234)
    assert digest(project) == expected


def test_a_file_that_was_changed_and_changed_back_gives_the_same_image(tmp_path, expected):
    project = make_project(tmp_path / "p")
    before = (project / "tree" / "a").read_bytes()
    digest(project)
    (project / "tree" / "a").write_bytes(b"other")
    assert digest(project) != expected
    (project / "tree" / "a").write_bytes(before)
    assert digest(project) == expected
