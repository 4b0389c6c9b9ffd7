"""Random trees as dump entries, reaching for the corners of the image format."""

import random
import stat

from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry

TYPES = (
    [stat.S_IFREG] * 8
    + [stat.S_IFDIR] * 3
    + [stat.S_IFLNK] * 3
    + [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK]
)
NAME_BYTES = bytes(byte for byte in range(1, 256) if byte != ord("/"))
XATTR_NAMES = (
    b"user.a",
    b"user.",
    b"user.mime_type",
    b"security.selinux",
    b"security.capability",
    b"security.ima",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"system.posix_acl_access_not_quite",
    b"system.nfs4_acl",
    b"lustre.lov",
    b"trusted.x",
    b"trusted.overlay.redirect",
    b"trusted.overlay.opaque",
    b"trusted.overlay.overlay.opaque",
    b"trusted.overlay.whiteout",
    b"user.overlay.whiteouts",
    b"odd",
)
MARKERS = (b"user.overlay.whiteouts", b"trusted.overlay.opaque", b"trusted.overlay.whiteout")
VALUES = (
    b"",
    b"x",
    b"system_u:object_r:etc_t:s0",
    b"=",
    b"\0\1\2",
    b"-",
    b"a b\n\\",
    bytes(range(256)),
    b"y" * 3000,
)


class Generator:
    """Draws one dump. `digests` are raw and of `digest_size` bytes."""

    def __init__(self, seed: int, *, digest_size: int = 32) -> None:
        self.random = random.Random(seed)
        self.digest_size = digest_size
        self.entries: list[DumpEntry] = []
        self.names: set[bytes] = set()
        self.directories = [b"/"]
        self.linkable: list[bytes] = []
        self.times = [(self.random.choice((-5, 0, 1000, 2**33)), 0) for _ in range(2)]
        self.whiteouts = self.random.random() < 0.4
        self.xattr_share = self.random.choice((0.0, 0.2, 0.7))

    def name(self) -> bytes:
        choice = self.random.random()
        if choice < 0.1:
            return b"%02x" % self.random.randrange(256)
        if choice < 0.3:
            length = self.random.choice((1, 1, 2, 5, 17, 255))
            return bytes(self.random.choices(NAME_BYTES, k=length))
        return self.random.choice((b"f", b"-", b"%d-", b"file.", b"!")).replace(
            b"%d", b"n"
        ) + b"%d" % self.random.randrange(10**6)

    def path(self) -> bytes:
        while True:
            name = self.name()
            path = paths.join(self.random.choice(self.directories), name)
            if name not in {b".", b".."} and path not in self.names and len(path) < 4000:
                self.names.add(path)
                return path

    def mtime(self) -> tuple[int, int]:
        if self.random.random() < 0.6:
            return self.random.choice(self.times)
        seconds = self.random.choice(
            (self.random.randrange(-(10**6), 2**32), self.random.randrange(-(2**40), 2**40))
        )
        return seconds, self.random.choice((0, 1, 999_999_999, self.random.randrange(10**9)))

    def xattrs(self) -> tuple[tuple[bytes, bytes], ...]:
        if self.random.random() >= self.xattr_share:
            return ()
        chosen = self.random.sample(XATTR_NAMES, k=self.random.randint(1, 4))
        pairs = [(name, self.random.choice(VALUES)) for name in chosen]
        # The C writer fails where it has to replace a longer value by its own marker (an unsigned underflow).
        return tuple(sorted((name, b"" if name in MARKERS else value) for name, value in pairs))

    def owner(self) -> int:
        return self.random.choice((0, 0, 0, 1000, 65535, 65536, 2**32 - 2, self.random.randrange(2**32)))

    def entry(self, path: bytes, kind: int) -> DumpEntry:
        sec, nsec = self.mtime()
        size, rdev, payload, content, digest = 0, 0, None, None, None
        if kind == stat.S_IFREG:
            size, payload, content, digest = self.data()
        elif kind == stat.S_IFLNK:
            payload = bytes(
                self.random.choices(NAME_BYTES, k=self.random.choice((1, 6, 40, 500, 2049, 4000, 4095)))
            )
            size = len(payload)
        elif kind in {stat.S_IFCHR, stat.S_IFBLK}:
            rdev = 0 if self.whiteouts and self.random.random() < 0.5 else self.random.randrange(1, 2**32)
        return DumpEntry(
            path,
            size,
            kind | self.random.choice((0o644, 0o755, 0o4755, 0o7777, 0)),
            self.random.choice((1, 1, 1, 2, 70000)),
            self.owner(),
            self.owner(),
            rdev,
            sec,
            nsec,
            payload,
            content,
            digest,
            self.xattrs(),
        )

    def data(self) -> tuple[int, bytes | None, bytes | None, bytes | None]:
        choice = self.random.random()
        if choice < 0.1:
            return 0, None, None, None
        if choice < 0.5:
            content = self.random.randbytes(
                self.random.choice((1, 5, 64, 65, 1000, 2048, 2049, 4095, 4096, 4097, 5000))
            )
            return len(content), None, content, None
        size = self.random.choice(
            (
                1,
                65,
                4096,
                4097,
                2**20,
                2**32 - 1,
                2**32,
                2**43,
                2**43 + 1,
                100 * 2**43,
                1024 * 2**43 - 7,
                1024 * 2**43,
            )
        )
        digest = None if self.random.random() < 0.2 else self.random.randbytes(self.digest_size)
        if self.random.random() < 0.1:
            return size, None, None, digest  # a hole: nobody has its bytes
        backing = self.random.choice(
            (b"ab/cdef", b"/absolute", self.random.randbytes(31).hex().encode(), b"x" * 4094)
        )
        return size, backing, None, digest

    def draw(self, count: int) -> list[DumpEntry]:
        """Return a dump of a root and about `count` names."""
        self.entries.append(self.entry(b"/", stat.S_IFDIR))
        for _ in range(count):
            path = self.path()
            if self.linkable and self.random.random() < 0.08:
                target = self.random.choice(self.linkable)
                self.entries.append(
                    self.entry(path, stat.S_IFREG).__class__(
                        path, 0, 0o100644, 1, 0, 0, 0, 0, 0, hardlink=target
                    )
                )
                self.linkable.append(path)
                continue
            kind = self.random.choice(TYPES)
            self.entries.append(self.entry(path, kind))
            if kind == stat.S_IFDIR:
                self.directories.append(path)
            else:
                self.linkable.append(path)
        return self.entries


def random_dump(seed: int, *, digest_size: int = 32) -> list[DumpEntry]:
    """Return the dump of `seed`: mostly small, at times with many names in few directories."""
    count = random.Random(~seed).choice((0, 1, 3, 10, 10, 30, 30, 60, 120))
    return Generator(seed, digest_size=digest_size).draw(count)


def wide_dump(seed: int, names: int) -> list[DumpEntry]:
    """Return a dump with one directory of `names` names of many lengths."""
    generator = Generator(seed)
    entries = [generator.entry(b"/", stat.S_IFDIR), generator.entry(b"/wide", stat.S_IFDIR)]
    for number in range(names):
        name = b"%0*d" % (generator.random.randint(5, 200), number)
        entries.append(generator.entry(b"/wide/" + name, stat.S_IFIFO))
    return entries


def many_shared_xattrs(seed: int, count: int) -> list[DumpEntry]:
    """Return a dump whose files share `count` xattrs, more than an inode can refer to."""
    generator = Generator(seed)
    pairs = tuple(
        sorted((b"user.%d" % number, b"v" * generator.random.randint(0, 9)) for number in range(count))
    )
    root = generator.entry(b"/", stat.S_IFDIR)
    files = [generator.entry(b"/f%d" % number, stat.S_IFREG) for number in range(3)]
    return [
        root,
        *(
            file.__class__(*(getattr(file, name) for name in file.__struct_fields__[:12]), pairs)
            for file in files
        ),
    ]
