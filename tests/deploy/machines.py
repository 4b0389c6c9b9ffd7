"""An image with /etc and /var, and a machine that starts from it again and again."""

import stat
import subprocess

from cfsbuild.deploy.mount import mount
from cfsbuild.deploy.spec import MountSpec
from cfsbuild.deploy.state import mount_state
from cfsbuild.erofs.writer import write_image
from cfsbuild.fsverity.algorithm import Algorithm
from cfsbuild.tree.flavour import to_dump
from cfsbuild.tree.inode import Inode
from cfsbuild.tree.layer import Tree


def tree():
    return Tree(
        entries={
            b"/": Inode(stat.S_IFDIR | 0o755),
            b"/etc": Inode(stat.S_IFDIR | 0o751, uid=3, gid=4),
            b"/etc/motd": Inode(stat.S_IFREG | 0o644, size=3, content=b"hi\n"),
            b"/var": Inode(stat.S_IFDIR | 0o1770, gid=5),
            b"/var/old": Inode(stat.S_IFREG | 0o644, size=2, content=b"o\n"),
        }
    )


class Machine:
    """An image that can be mounted again and again, as a machine boots again and again."""

    def __init__(self, directory):
        self.directory = directory
        self.target = directory / "root"
        self.base = directory / "disk"
        for path in (self.target, self.base, directory / "objects"):
            path.mkdir()
        self.up = []
        self.image(tree())

    def image(self, made):
        data = write_image(to_dump(made, epoch=1), format=1, algorithm=Algorithm.SHA256)
        (self.directory / "image.cfs").write_bytes(data)

    def boot(self, **ways):
        spec = MountSpec(
            image=str(self.directory / "image.cfs"), objects=(str(self.directory / "objects"),), verity="off"
        )
        mount(spec, self.target)
        self.up = [self.target]
        self.up += mount_state(self.target, ways, self.base, "state/m")
        return self.target

    def off(self):
        subprocess.run(["umount", "-R", "-l", self.target], check=False, capture_output=True)
