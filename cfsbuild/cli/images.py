"""What an IMAGE argument means.

In this order: a file (`.cfs` image, dump text, or a recipe, which stands for the image last built from it), a
digest in hex, the name of a reference in the store.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click
import msgspec

from cfsbuild import limits
from cfsbuild.cli.completing import complete_image
from cfsbuild.cli.lookup import Entries, by_path
from cfsbuild.cli.settings import Settings
from cfsbuild.cli.stores import open_store
from cfsbuild.errors import InputError, UsageError, VerificationError
from cfsbuild.fsverity.algorithm import algorithm_of_digest
from cfsbuild.tree.dump import DumpEntry
from cfsbuild.tree.layer import Tree

if TYPE_CHECKING:
    from cfsbuild.erofs.reader import ImageInfo
    from cfsbuild.store.images import ImageRef
    from cfsbuild.store.store import Store

Function = TypeVar("Function", bound=Callable[..., Any])

MAGIC = b"\x9a\x62\x78\xd0"
PREFIX_DIGITS = 8
NAMES_SHOWN = 10


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image, or a dump that stands for one.

    `name` is what to call it in messages; `path` where its bytes lie on this machine; `reference` its name in
    the store and `expected` the digest by which it was found there, both empty for a file.
    """

    name: str
    kind: Literal["image", "dump"]
    data: bytes
    path: Path
    reference: str = ""
    expected: str = ""

    def digest(self) -> str:
        """Return the fs-verity digest of the image file in lower-case hex; empty for a dump."""
        if self.kind == "dump":
            return ""
        return self.expected or image_digest(self.name, self.data)

    def read(self) -> ImageInfo:
        """Return the image's reader. Raises `InputError` for a dump, and for what is no image."""
        from cfsbuild.erofs.reader import read_image  # noqa: PLC0415 (not for dumps)

        if self.kind == "dump":
            raise InputError(
                f"{self.name} is a dump, not an image", resolution="`cfsbuild import` makes it one"
            )
        with naming(self.name):
            return read_image(self.data)

    def entries(self) -> Iterator[DumpEntry]:
        """Yield every name of the image in the order in which it stands there."""
        with naming(self.name):
            if self.kind == "dump":
                from cfsbuild.tree.dump import parse_dump_bytes  # noqa: PLC0415 (not for images)

                yield from parse_dump_bytes(self.data, digest_size=_digest_size(self.data), name=self.name)
            else:
                yield from self.read().entries()

    def listing(self) -> Entries:
        """Return every name, depth first, hard links filled in."""
        with naming(self.name):
            return by_path(self.entries())

    def tree(self) -> Tree:
        """Return the tree that the image describes."""
        from cfsbuild.tree.flavour import from_dump  # noqa: PLC0415 (listings need no tree)

        with naming(self.name):
            return from_dump(self.entries())


def _digest_size(dump: bytes) -> int:
    """Return the size in bytes of the digests in a dump, by the first line that has one."""
    for line in io.BytesIO(dump):
        fields = line.split(b" ", 11)
        digest = fields[10].strip() if len(fields) > 10 else b"-"
        if digest != b"-":
            return 64 if len(digest) == 128 else 32
    return 32


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Put the name of the image in front of an `InputError` that does not tell it yet."""
    try:
        yield
    except InputError as error:
        if name not in error.brief:
            error.brief = f"{name}: {error.brief}"
        raise


def image_argument(
    name: str = "image", metavar: str = "IMAGE", *, required: bool = True
) -> Callable[[Function], Function]:
    """Add an argument that names an image; shells complete it with files and references."""
    return click.argument(name, metavar=metavar, shell_complete=complete_image, required=required)


def objects_option(help_text: str) -> Callable[[Function], Function]:
    """Add `--objects DIR`, as the parameter `objects`."""
    return click.option(
        "--objects",
        metavar="DIR",
        multiple=True,
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help=help_text,
    )


def open_image(settings: Settings, text: str) -> Image:
    """Return the image that the argument `text` means.

    Raises `UsageError` if there is none, `VerificationError` if an image of the store is not what its name
    says, `InputError` if a file is neither image nor dump nor recipe.
    """
    path = Path(text)
    if path.is_file():
        return _from_recipe(settings, path) if path.suffix == ".toml" else _from_file(text, path)
    if path.suffix in {".cfs", ".toml", ".dump"} or text.startswith(("./", "../", "/")):
        raise UsageError(
            f"there is no file {text}", resolution="check the path (see also -C)", reason="no-image"
        )
    return _from_store(settings, text)


def _from_file(text: str, path: Path) -> Image:
    size = path.stat().st_size
    if size > limits.IMAGE_BYTES:
        raise InputError(f"{text} has {size} bytes, which is more than an image can have", reason="size")
    data = path.read_bytes()
    if data[: len(MAGIC)] == MAGIC:
        return Image(name=text, kind="image", data=data, path=path)
    if data[:2] == b"/ ":
        return Image(name=text, kind="dump", data=data, path=path)
    hints = {
        b"CFSB1": "it is a sealed bundle: `cfsbuild unseal` opens it on its machine",
        b'{"gen': "it is a bundle that is not signed: `cfsbuild sign` signs it",
    }
    raise InputError(
        f"{text} is neither a composefs image nor a dump",
        details="an image begins with the bytes 9a 62 78 d0, a dump with the line of the root directory",
        resolution=hints.get(data[:5], ""),
        reason="magic",
    )


def image_digest(name: str, data: bytes, like: str = "") -> str:
    """Return the fs-verity digest of an image in lower-case hex.

    By the algorithm that gives digests like `like` (hex), else by the one that its objects use.
    """
    from cfsbuild.erofs.reader import read_image  # noqa: PLC0415
    from cfsbuild.fsverity.digest import digest_bytes  # noqa: PLC0415

    if like:
        return digest_bytes(data, algorithm_of_digest(bytes.fromhex(like))).hex()
    with naming(name):
        return digest_bytes(data, read_image(data).algorithm).hex()


def check_image_digest(image: Image, digest: str) -> str:
    """Return the digest of `image`, which must be `digest` (hex of any case) or, without one, the store's.

    Raises `UsageError` for what is no digest, `VerificationError` (reason `image-digest`) if it is another.
    """
    wanted = digest.lower() or image.expected
    if wanted and (len(wanted) not in {64, 128} or wanted.strip("0123456789abcdef")):
        raise UsageError(
            f"{digest!r} is not an fs-verity digest", resolution="give 64 or 128 hex digits", reason="usage"
        )
    found = image_digest(image.name, image.data, wanted)
    if wanted and found != wanted:
        raise VerificationError(
            f"{image.name} does not have the digest that it should have",
            details=f"expected {wanted}\nfound    {found}",
            reason="image-digest",
        )
    return found


def _from_store(settings: Settings, text: str) -> Image:
    from cfsbuild.store.layout import object_name  # noqa: PLC0415 (not for files)

    with open_store(settings) as store:
        found = store.image(text) or _by_prefix(store, text)
        if found is None:
            raise _no_image(store, text)
        # Verified by the store: the bytes are what the digest says.
        data = store.read_object(found.digest)
        path = store.objects_path / object_name(found.digest)
    return Image(name=text, kind="image", data=data, path=path, reference=found.name, expected=found.hex)


def _by_prefix(store: Store, text: str) -> ImageRef | None:
    """Return the only image whose digest begins with `text`; raises `UsageError` if there are several."""
    if len(text) < PREFIX_DIGITS or text.strip("0123456789abcdef"):
        return None
    found = [digest.hex() for digest in store.images() if digest.hex().startswith(text)]
    if len(found) > 1:
        raise UsageError(f"{text} is the beginning of several digests", details="\n".join(found))
    return store.image(found[0]) if found else None


def _no_image(store: Store, text: str) -> UsageError:
    import difflib  # noqa: PLC0415 (only to complain)

    known = sorted(store.refs())
    near = sorted(difflib.get_close_matches(text, known, n=3)) or known[:NAMES_SHOWN]
    return UsageError(
        f"there is no image {text}: no such file, and no such name or digest in the store {store.path}",
        resolution=f"images there: {', '.join(near)}" if near else "build one, or `cfsbuild import` one",
        reason="no-image",
    )


def _from_recipe(settings: Settings, path: Path) -> Image:
    """Return the image that was last built from the recipe."""
    names = recipe_images(path)
    if len(names) > 1:
        raise UsageError(
            f"{path} describes {len(names)} images", resolution=f"name one of them: {', '.join(names)}"
        )
    with open_store(settings) as store:
        built = store.resolve(names[0]) is not None
    if not built:
        raise UsageError(
            f"{path} has not been built into the store {settings.store_path}",
            resolution=f"build it first: cfsbuild build {path}",
            reason="not-built",
        )
    return _from_store(settings, names[0])


def recipe_images(path: Path) -> list[str]:
    """Return the names of the images that a recipe describes. Raises `RecipeError`."""
    from cfsbuild.cli.recipes import load  # noqa: PLC0415 (recipes only)

    return [recipe.image_name for recipe in load(path, (), ())]


def origins_of(image: Image) -> dict[bytes, list[str]]:
    """Return for each path the recipe's node, and those that changed attributes of it.

    From the manifest that the build wrote: `NAME.manifest.json` beside an image file `NAME.cfs`, and in
    `out/` for an image of the store. Raises `UsageError` if there is none, or if it describes another image.
    """
    from cfsbuild.targets.manifest import decode_manifest, origins  # noqa: PLC0415 (--origin only)

    stem = image.reference or image.path.stem
    place = (Path("out") if image.expected else image.path.parent) / f"{stem}.manifest.json"
    if not place.is_file():
        raise UsageError(
            f"nothing says where the paths of {image.name} come from",
            details=f"looked for {place}",
            resolution="`cfsbuild build` writes NAME.manifest.json beside NAME.cfs: name that file",
            reason="no-manifest",
        )
    manifest = decode_manifest(place.read_bytes())
    if manifest.digest != image.digest():
        raise UsageError(
            f"{place} describes another image",
            details=f"its digest is {manifest.digest}",
            reason="no-manifest",
        )
    return origins(manifest)
