"""Accounts, judged by the programs that read them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time

import pytest
from node_helpers import Objects, problems, run, spec, tree_of

from cfsbuild.errors import BuildError, RecipeError
from cfsbuild.nodes.accounts import owners_of
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import make_layer

APP = {
    "groups": [{"name": "app", "gid": 990}],
    "users": [
        {"name": "app", "uid": 990, "group": "app", "home": "/var/lib/app", "gecos": "The application"}
    ],
}


def program(name):
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")


def base(objects, **files):
    """A layer with files in /etc, each text or (text, mode, uid, gid)."""
    entries = {}
    for name, value in files.items():
        text, mode, uid, gid = value if isinstance(value, tuple) else (value, 0o644, 0, 0)
        data = text.encode()
        digest = objects.add_bytes(data) if len(data) > 64 else b""
        entries[b"/etc/" + name.encode()] = Inode(
            mode=stat.S_IFREG | mode,
            uid=uid,
            gid=gid,
            size=len(data),
            digest=digest,
            content=b"" if digest else data,
        )
    return make_layer(entries)


def texts(objects, layer):
    return {
        path.decode().removeprefix("/etc/"): objects.content(inode).decode()
        for path, inode in layer.entries.items()
        if inode.is_regular
    }


def write(directory, objects, tree):
    """Put the regular files and directories of a tree below a scratch directory."""
    for path, inode in tree.entries.items():
        place = directory / os.fsdecode(path[1:])
        if inode.is_directory:
            place.mkdir(exist_ok=True)
        else:
            place.write_bytes(objects.content(inode))
            place.chmod(stat.S_IMODE(inode.mode))
    return directory


def test_without_a_base_root_is_added_and_all_four_files_are_written():
    objects = Objects()
    layer = run("accounts", objects, **APP)
    assert texts(objects, layer) == {
        "passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:990:990:The application:/var/lib/app:/usr/sbin/nologin\n",
        "group": "root:x:0:\napp:x:990:\n",
        "shadow": "root:!*:::::::\napp:!*:::::::\n",
        "gshadow": "root:!*::\napp:!*::\n",
    }
    modes = {path: (stat.S_IMODE(i.mode), i.uid, i.gid) for path, i in layer.entries.items()}
    assert modes[b"/etc/passwd"] == (0o644, 0, 0)
    assert modes[b"/etc/shadow"] == modes[b"/etc/gshadow"] == (0o600, 0, 0)


@program("pwck")
@program("grpck")
@pytest.mark.skipif(os.geteuid() != 0, reason="pwck -R needs root")
def test_pwck_and_grpck_find_nothing_wrong(tmp_path):
    objects = Objects()
    more = {
        "groups": [{"name": "app", "gid": 990, "members": ["web"]}, {"name": "log", "gid": 991}],
        "users": [
            {**APP["users"][0], "home": "/home/app", "create_home": True},
            {"name": "web", "uid": 992, "home": "/home/web", "create_home": True, "groups": ["log"]},
        ],
    }
    tree = tree_of(make_layer({b"/root": Inode(mode=stat.S_IFDIR | 0o700)}), run("accounts", objects, **more))
    root = write(tmp_path, objects, tree)
    for shell in ("bin/sh", "usr/sbin/nologin"):
        (root / shell).parent.mkdir(parents=True, exist_ok=True)
        (root / shell).write_text("")
        (root / shell).chmod(0o755)
    for check in ("pwck", "grpck"):
        answer = subprocess.run([check, "-r", "-R", root], capture_output=True, text=True, check=False)
        assert (answer.stdout, answer.stderr, answer.returncode) == ("", "", 0)
    damaged = root / "etc/group"
    damaged.write_text(damaged.read_text() + "bad:x:x:nobody-there\n")
    assert subprocess.run(["grpck", "-r", "-R", root], capture_output=True, check=False).returncode


@program("getent")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs chroot")
def test_the_c_library_resolves_names_members_and_primary_groups(tmp_path):
    objects = Objects()
    layer = run(
        "accounts",
        objects,
        **APP | {"groups": [{"name": "app", "gid": 990}, {"name": "x", "gid": 5, "members": ["app"]}]},
    )
    root = write(tmp_path, objects, tree_of(layer))
    script = f"mount --bind {root}/etc/passwd /etc/passwd && mount --bind {root}/etc/group /etc/group && getent passwd app && getent group x && id app"
    answer = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if answer.returncode and "mount" in answer.stderr:
        pytest.skip(f"cannot bind mount here: {answer.stderr}")
    assert answer.stdout.splitlines() == [
        "app:x:990:990:The application:/var/lib/app:/usr/sbin/nologin",
        "x:x:5:app",
        "uid=990(app) gid=990(app) groups=990(app),5(x)",
    ]


USERS_FILE = (
    "# local\nroot:x:0:0:root:/root:/bin/bash\nwww:x:33:33:www:/var/www:/bin/false\nbroken line\n+nis\n"
)
GROUP = "root:x:0:\nshadow:x:42:\nwww:x:33:\nadm:x:4:syslog,www\n"


def test_lines_that_are_there_keep_their_order_and_bytes_and_new_ones_come_before_nis():
    objects = Objects()
    tree = tree_of(
        base(objects, passwd=USERS_FILE, group=GROUP, shadow=("root:$6$x:1::::::\n", 0o640, 0, 42))
    )
    layer = run("accounts", objects, tree, **APP)
    result = texts(objects, layer)
    assert result["passwd"] == USERS_FILE.replace(
        "+nis\n", "app:x:990:990:The application:/var/lib/app:/usr/sbin/nologin\n+nis\n"
    )
    assert result["group"] == GROUP + "app:x:990:\n"
    assert result["shadow"] == "root:$6$x:1::::::\napp:!*:::::::\n"
    assert result["gshadow"] == "root:!*::\nshadow:!*::\nwww:!*::\nadm:!*::syslog,www\napp:!*::\n"
    assert {p: (stat.S_IMODE(i.mode), i.gid) for p, i in layer.entries.items() if b"shadow" in p} == {
        b"/etc/shadow": (0o640, 42),
        b"/etc/gshadow": (0o640, 42),
    }


def test_a_file_without_a_final_newline_and_with_other_bytes_is_kept_whole():
    objects = Objects()
    raw = b"root:x:0:0:r\xe9ot:/root:/bin/sh"
    inode = Inode(
        mode=stat.S_IFREG | 0o600,
        uid=1,
        size=len(raw),
        content=raw,
        mtime_ns=7,
        xattrs=((b"security.selinux", b"label\0"),),
    )
    tree = tree_of(make_layer({b"/etc/passwd": inode}))
    layer = run("accounts", objects, tree, **APP)
    written = layer.entries[b"/etc/passwd"]
    assert objects.content(written).startswith(raw + b"\napp:x:")
    assert (stat.S_IMODE(written.mode), written.uid, written.mtime_ns) == (0o600, 1, 7)
    assert written.xattrs == inode.xattrs


def test_what_is_there_already_is_accepted_and_what_is_declared_about_it_is_changed():
    objects = Objects()
    tree = tree_of(base(objects, passwd=USERS_FILE, group=GROUP))
    layer = run(
        "accounts",
        objects,
        tree,
        users=[{"name": "www", "uid": 33, "shell": "/bin/sh", "groups": ["adm", "shadow"]}],
    )
    result = texts(objects, layer)
    assert result["passwd"] == USERS_FILE.replace("/bin/false", "/bin/sh")
    assert result["group"] == GROUP.replace("shadow:x:42:", "shadow:x:42:www")


@pytest.mark.parametrize(
    ("accounts", "brief", "there"),
    [
        (
            {"users": [{"name": "www", "uid": 34, "group": 33}]},
            "user www exists already as number 33",
            "www:x:33:33",
        ),
        (
            {"users": [{"name": "web", "uid": 33, "group": 33}]},
            "number 33 belongs to the user www already",
            "www:x:33:33",
        ),
        (
            {"users": [{"name": "www", "uid": 33, "group": "adm"}]},
            "user www has primary group 33 already",
            "www:x:33:33",
        ),
        ({"groups": [{"name": "adm", "gid": 5}]}, "group adm exists already as number 4", "adm:x:4:"),
        ({"groups": [{"name": "new", "gid": 4}]}, "number 4 belongs to the group adm already", "adm:x:4:"),
    ],
)
def test_a_collision_shows_both_lines(accounts, brief, there):
    objects = Objects()
    tree = tree_of(base(objects, passwd=USERS_FILE, group=GROUP))
    with pytest.raises(BuildError) as caught:
        run("accounts", objects, tree, **accounts)
    assert caught.value.brief == brief
    assert there in caught.value.details
    assert "declared: " in caught.value.details
    assert caught.value.origin.file == "recipe.toml"


@pytest.mark.parametrize(
    ("accounts", "brief"),
    [
        ({"users": [{"name": "a", "uid": 1, "group": "zz"}]}, "there is no such group"),
        ({"users": [{"name": "a", "uid": 1, "groups": ["zz"]}]}, "there is no such group"),
        ({"groups": [{"name": "a", "gid": 1, "members": ["zz"]}]}, "there is no such user"),
    ],
)
def test_a_name_that_is_nowhere_is_an_error(accounts, brief):
    with pytest.raises(BuildError, match=brief):
        run("accounts", **accounts)


def test_a_passwd_that_is_a_symlink_is_refused():
    tree = tree_of(make_layer({b"/etc/passwd": Inode(mode=stat.S_IFLNK | 0o777, size=1, target=b"x")}))
    with pytest.raises(BuildError, match="not a regular file"):
        run("accounts", None, tree, **APP)


def test_a_home_directory_belongs_to_its_user():
    layer = run(
        "accounts",
        users=[{"name": "u", "uid": 7, "home": "/home/u", "create_home": True, "home_mode": "0750"}],
    )
    assert layer.entries[b"/home/u"] == Inode(mode=stat.S_IFDIR | 0o750, uid=7, gid=7)


@program("systemd-sysusers")
@pytest.mark.skipif(os.geteuid() != 0, reason="systemd-sysusers changes files as root")
def test_systemd_sysusers_makes_the_same_accounts_from_the_file(tmp_path):
    objects = Objects()
    accounts = {
        "groups": [{"name": "app", "gid": 990, "members": ["web"]}, {"name": "log", "gid": 991}],
        "users": [
            APP["users"][0],
            {
                "name": "web",
                "uid": 992,
                "gecos": 'the "web" 100%',
                "home": "/srv/web",
                "shell": "/bin/sh",
                "groups": ["log"],
            },
        ],
    }
    layer = run("accounts", objects, name="us", sysusers=True, **accounts)
    ours = texts(objects, layer)
    (tmp_path / "usr/lib/sysusers.d").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr/lib/sysusers.d/us.conf").write_text(ours.pop("/usr/lib/sysusers.d/us.conf"))
    answer = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    for name in ("passwd", "group"):
        theirs = set((tmp_path / "etc" / name).read_text().splitlines())
        assert {line for line in ours[name].splitlines() if not line.startswith("root:")} == theirs, name


def test_owners_of_gives_the_names_of_all_nodes():
    specs = [spec("accounts", name="a", **APP), spec("accounts", name="b", users=[{"name": "web", "uid": 5}])]
    owners = owners_of(specs)
    assert owners.uids == {"root": 0, "app": 990, "web": 5}
    assert owners.gids == {"root": 0, "app": 990, "web": 5}


def test_owners_of_finds_every_contradiction_with_both_places():
    specs = [
        spec("accounts", name="a", groups=[{"name": "g", "gid": 1}], users=[{"name": "u", "uid": 5}]),
        spec(
            "accounts",
            name="b",
            groups=[{"name": "g", "gid": 2}],
            users=[{"name": "v", "uid": 5, "group": 0}, {"name": "w", "uid": 0}],
        ),
    ]
    with pytest.raises(RecipeError) as caught:
        owners_of(specs)
    briefs = [problem.brief for problem in caught.value.problems()]
    assert briefs == [
        "uid 5 is both u and v",
        "uid 0 is both root and w",
        "group g is 1 and 2",
        "gid 0 is both root and w",
    ]
    assert caught.value.details == "first: a, recipe.toml:3\nthen:  b, recipe.toml:3"


def test_check_finds_what_can_be_known_early():
    found = problems(
        "accounts",
        groups=[{"name": "g", "gid": 65535}, {"name": "g", "gid": 65535}],
        users=[{"name": "u", "uid": 1, "home": "/a:b"}, {"name": "v", "uid": 2, "create_home": True}],
    )
    assert found == [
        "node: group g cannot be number 65535",
        "node: group g is declared twice",
        "node: group g cannot be number 65535",
        "node: home of u contains a colon, which ends a field of /etc/passwd",
        "node: v has no home directory of its own to create",
    ]
    assert problems("accounts") == ["node: declares no user and no group"]


def test_a_second_accounts_node_adds_to_the_first():
    objects = Objects()
    first = run("accounts", objects, **APP)
    second = run("accounts", objects, tree_of(first), users=[{"name": "z", "uid": 3}])
    tree = tree_of(first, second)
    names = [
        line.split(":")[0] for line in objects.content(tree.entries[b"/etc/passwd"]).decode().splitlines()
    ]
    assert names == ["root", "app", "z"]


def test_thousands_of_accounts_take_seconds_at_most():
    users = [{"name": f"u{i}", "uid": 1000 + i} for i in range(600)]
    start = time.process_time()
    layer = run("accounts", users=users)
    assert time.process_time() - start < 10
    assert len(layer.entries) == 4


def test_a_database_of_absurd_size_is_refused():
    inode = Inode(mode=stat.S_IFREG | 0o644, size=2**40, digest=b"x" * 32)
    with pytest.raises(BuildError, match="is larger than"):
        run("accounts", None, tree_of(make_layer({b"/etc/passwd": inode})), **APP)
