"""`cfsbuild ls`: what an image contains, in the manner of `ls -l`."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

import click
import msgspec

from cfsbuild.cli import render
from cfsbuild.cli.accounts import Names, read_names
from cfsbuild.cli.images import Image, image_argument, open_image, origins_of
from cfsbuild.cli.lookup import Entries, argument_path, below, children, locate
from cfsbuild.cli.output import write_json, write_lines
from cfsbuild.cli.settings import Settings, common_options, pass_settings
from cfsbuild.tree import paths
from cfsbuild.tree.dump import DumpEntry

LISTING_VERSION = 1

_TYPE_STYLES = {
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_TYPE_NAMES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "character",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


class View(msgspec.Struct, frozen=True, kw_only=True):
    """How to show entries. `origins` is None unless the nodes of each path are asked for."""

    human: bool
    color: bool
    names: Names
    origins: dict[bytes, list[str]] | None


@click.command("ls", context_settings={"help_option_names": ["--help"]})
@common_options("json", "store", "color")
@click.option("-l", "long", is_flag=True, hidden=True, help="Accepted for habit: the listing is always long.")
@click.option("-R", "--recursive", is_flag=True, help="List directories below, too.")
@click.option("--tree", "as_tree", is_flag=True, help="Draw everything below PATH as a tree.")
@click.option("-d", "itself", is_flag=True, help="List a directory itself, not what is in it.")
@click.option("-1", "bare", is_flag=True, help="Only names, one a line; full paths with -R.")
@click.option("-h", "--human-readable", "human", is_flag=True, help="Sizes like 1.5K, 2.0M.")
@click.option(
    "--names", "with_names", is_flag=True, help="Owners by name, from the image's /etc/passwd, group."
)
@click.option(
    "--origin",
    is_flag=True,
    help="The recipe's node that each path comes from, and those that changed attributes of it.",
)
@image_argument()
@click.argument("path", default="/", metavar="[PATH]")
@pass_settings
def command(  # noqa: PLR0913 (one parameter an option)
    settings: Settings,
    image: str,
    path: str,
    *,
    long: bool,
    recursive: bool,
    as_tree: bool,
    itself: bool,
    bare: bool,
    human: bool,
    with_names: bool,
    origin: bool,
) -> None:
    r"""List what IMAGE contains at PATH (default: its root).

    Times are UTC. Unprintable bytes of names are written as \xHH.
    """
    del long
    opened = open_image(settings, image)
    entries = opened.listing()
    top = locate(entries, argument_path(path), image=opened.name, follow=path.endswith("/"))
    view = View(
        human=human,
        color=settings.color_on_stdout and not settings.json,
        names=read_names(settings, opened, entries) if with_names or settings.json else Names(),
        origins=origins_of(opened) if origin else None,
    )
    chosen = _chosen(entries, top, recursive=recursive or as_tree, itself=itself)
    if settings.json:
        write_json(_document(opened, chosen, view))
    elif as_tree:
        write_lines(_tree_lines(list(below(entries, top.path)), view, bare=bare))
    elif recursive and not bare and not itself and stat.S_ISDIR(top.mode):
        write_lines(_recursive_lines(list(below(entries, top.path)), view))
    else:
        shown = _last_name if stat.S_ISDIR(top.mode) and not itself and not recursive else _whole_path
        write_lines(_names_only(chosen, shown) if bare else _rows(chosen, view, shown))


def _chosen(entries: Entries, top: DumpEntry, *, recursive: bool, itself: bool) -> list[DumpEntry]:
    if itself or not stat.S_ISDIR(top.mode):
        return [top]
    return list(below(entries, top.path)) if recursive else children(entries, top.path)


def _last_name(entry: DumpEntry) -> str:
    return paths.show(paths.name(entry.path)) or "/"


def _whole_path(entry: DumpEntry) -> str:
    return paths.show(entry.path)


def _names_only(entries: list[DumpEntry], shown: Callable[[DumpEntry], str]) -> Iterator[str]:
    return (shown(entry) for entry in entries)


def _rows(entries: list[DumpEntry], view: View, shown: Callable[[DumpEntry], str]) -> list[str]:
    rows = [[*_columns(entry, view), _styled(entry, shown(entry), view)] for entry in entries]
    # nlink and size are numbers; owners are flushed left when they are names, as ls does it.
    right = {1, 4} if view.names.users or view.names.groups else {1, 2, 3, 4}
    return render.columns(rows, right=right)


def _columns(entry: DumpEntry, view: View) -> list[str]:
    cells = [
        stat.filemode(entry.mode) + ("+" if _has_acl(entry) else ""),
        str(entry.nlink),
        view.names.users.get(entry.uid, str(entry.uid)),
        view.names.groups.get(entry.gid, str(entry.gid)),
        _size(entry, view),
        render.utc_time(entry.mtime_sec),
    ]
    if view.origins is not None:
        cells.append(",".join(view.origins.get(entry.path, [])) or "-")
    return cells


def _has_acl(entry: DumpEntry) -> bool:
    return any(name.startswith(b"system.posix_acl_") for name, _ in entry.xattrs)


def _size(entry: DumpEntry, view: View) -> str:
    if stat.S_ISBLK(entry.mode) or stat.S_ISCHR(entry.mode):
        return f"{os.major(entry.rdev)}, {os.minor(entry.rdev)}"
    return render.human_size(entry.size) if view.human else str(entry.size)


def _styled(entry: DumpEntry, text: str, view: View) -> str:
    """Return the name in the colour of its type, and where a symbolic link points to."""
    kind = stat.S_IFMT(entry.mode)
    style = _TYPE_STYLES.get(kind, "")
    if kind == stat.S_IFREG and entry.mode & (stat.S_ISUID | stat.S_ISGID):
        style = "setuid"
    elif kind == stat.S_IFREG and entry.mode & 0o111:
        style = "executable"
    name = render.paint(text, style, color=view.color)
    return f"{name} -> {paths.show(entry.payload or b'')}" if kind == stat.S_IFLNK else name


def _recursive_lines(entries: list[DumpEntry], view: View) -> Iterator[str]:
    """Yield one block a directory, as `ls -lR` does."""
    inside: dict[bytes, list[DumpEntry]] = {e.path: [] for e in entries if stat.S_ISDIR(e.mode)}
    for entry in entries[1:]:
        inside[paths.parent(entry.path)].append(entry)
    for number, (directory, content) in enumerate(inside.items()):
        if number:
            yield ""
        yield f"{render.paint(paths.show(directory), 'bold', color=view.color)}:"
        yield from _rows(content, view, _last_name)


def _tree_lines(entries: list[DumpEntry], view: View, *, bare: bool) -> Iterator[str]:
    base = _depth(entries[0].path)
    stems = render.branches([_depth(entry.path) - base for entry in entries])
    labels = [
        _last_name(entry) if stem else _whole_path(entry) for stem, entry in zip(stems, entries, strict=True)
    ]
    names = [
        render.paint(stem, "dim", color=view.color) + _styled(entry, label, view)
        for stem, entry, label in zip(stems, entries, labels, strict=True)
    ]
    if bare:
        yield from names
    else:
        columns = [_columns(entry, view) for entry in entries]
        brief = [[row[0], *row[2:5], *row[6:], name] for row, name in zip(columns, names, strict=True)]
        yield from render.columns(brief, right={1, 2, 3})
    directories = sum(stat.S_ISDIR(entry.mode) for entry in entries[1:])
    yield ""
    yield (
        f"{render.count(directories, 'directory', 'directories')}, "
        f"{render.count(len(entries) - 1 - directories, 'other')}"
    )


def _depth(path: bytes) -> int:
    return 0 if path == paths.ROOT else path.count(b"/")


def _document(image: Image, entries: list[DumpEntry], view: View) -> dict[str, object]:
    return {
        "version": LISTING_VERSION,
        "image": image.name,
        "digest": image.digest(),
        "entries": [_entry_document(entry, view) for entry in entries],
    }


def _entry_document(entry: DumpEntry, view: View) -> dict[str, object]:
    kind = stat.S_IFMT(entry.mode)
    result: dict[str, object] = {
        **render.json_path("path", entry.path),
        "type": _TYPE_NAMES.get(kind, "unknown"),
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "nlink": entry.nlink,
        "uid": entry.uid,
        "gid": entry.gid,
        "user": view.names.users.get(entry.uid),
        "group": view.names.groups.get(entry.gid),
        "size": entry.size,
        "mtime_ns": entry.mtime_sec * 10**9 + entry.mtime_nsec,
    }
    if kind == stat.S_IFLNK:
        result |= render.json_path("target", entry.payload or b"")
    elif kind in {stat.S_IFBLK, stat.S_IFCHR}:
        result["rdev"] = [os.major(entry.rdev), os.minor(entry.rdev)]
    elif kind == stat.S_IFREG:
        result["inline"] = entry.content is not None
        result["digest"] = None if entry.digest is None else entry.digest.hex()
    if entry.hardlink is not None:
        result |= render.json_path("hardlink", entry.hardlink)
    if entry.xattrs:
        result["xattrs"] = {paths.show(name): value.hex() for name, value in entry.xattrs}
    if view.origins is not None:
        result["origin"], *result["changed_by"] = view.origins.get(entry.path, [""])
    return result
