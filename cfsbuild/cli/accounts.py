"""Names of owners, from the image's own /etc/passwd and /etc/group."""

from __future__ import annotations

import msgspec

from cfsbuild.cli.contents import read_content
from cfsbuild.cli.images import Image
from cfsbuild.cli.lookup import Entries, argument_path, locate
from cfsbuild.cli.settings import Settings
from cfsbuild.errors import CfsError
from cfsbuild.tree import paths

ACCOUNT_BYTES = 1 << 20


class Names(msgspec.Struct, frozen=True):
    """Names by number, as far as the image gives any."""

    users: dict[int, str] = {}
    groups: dict[int, str] = {}


def read_names(settings: Settings, image: Image, entries: Entries) -> Names:
    """Return the names that the image's account files give; none where a file is missing or unreadable."""
    return Names(
        users=_read(settings, image, entries, "/etc/passwd"),
        groups=_read(settings, image, entries, "/etc/group"),
    )


def _read(settings: Settings, image: Image, entries: Entries, path: str) -> dict[int, str]:
    try:
        entry = locate(entries, argument_path(path), image=image.name, follow=True)
        if entry.size > ACCOUNT_BYTES:
            return {}
        data = b"".join(read_content(settings, image, entry))
    except CfsError:
        # Names are a courtesy: an image without accounts, or whose objects are elsewhere, still has numbers.
        return {}
    return parse_accounts(data)


def parse_accounts(data: bytes) -> dict[int, str]:
    """Return name by number from passwd(5) or group(5) text; the first line of a number counts."""
    names: dict[int, str] = {}
    for line in data.splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[0] and fields[2].isdigit() and len(fields[2]) <= 10:
            names.setdefault(int(fields[2]), paths.show(fields[0]))
    return names
