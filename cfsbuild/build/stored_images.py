"""The images of the store that a recipe's nodes take in by name or digest."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cfsbuild.build.job import NODE, Plan
from cfsbuild.errors import Problem, UsageError

if TYPE_CHECKING:
    from cfsbuild.build.memo import Request
    from cfsbuild.recipe.model import NodeSpec
    from cfsbuild.store.images import ImageRef
    from cfsbuild.store.store import Store


def stored_images(plans: Sequence[Plan]) -> list[str]:
    """Return the names of stored images that nodes take in: they may come to stand for other images."""
    return [spec.params.image for plan in plans for spec in _nodes(plan)]


def check_stored_images(plans: Sequence[Plan], request: Request) -> None:
    """Raise `RecipeError` with every node that takes in an image which the store does not have.

    An image that an earlier one of `plans` gives need not be there yet.
    """
    wanted: list[NodeSpec] = []
    made: set[str] = set()
    for plan in plans:
        wanted += [spec for spec in _nodes(plan) if spec.params.image not in made]
        made.add(plan.recipe.image_name)
    if not wanted:
        return
    problems = list(_missing(wanted, request))
    if problems:
        from cfsbuild.recipe.problems import collect  # noqa: PLC0415 (only when something is wrong)

        raise collect(problems)


def lend_stored_images(plan: Plan, request: Request, stores: Sequence[Store]) -> None:
    """Copy the stored images that `plan` takes in, with their contents, to `stores`."""
    names = stored_images([plan])
    if not names:
        return
    with _open(request) as source:
        for name, store in itertools.product(names, stores):
            image = source.image(name)
            if image is not None:
                _copy(source, image, store)


def _copy(source: Store, image: ImageRef, target: Store) -> None:
    from cfsbuild.store.contents import image_objects  # noqa: PLC0415 (few recipes take in a stored image)
    from cfsbuild.store.durability import Durability  # noqa: PLC0415

    objects = list(image_objects(source, image.digest))
    with target.transaction(durability=Durability.NONE) as transaction:
        for digest in objects:
            with os.fdopen(source.open_object(digest), "rb") as file:
                transaction.add_fd(file.fileno())
        transaction.put_image(source.read_object(image.digest), objects)
        if image.name:
            transaction.set_ref(image.name, image.digest)
        transaction.commit()


def _open(request: Request) -> Store:
    from cfsbuild.store.store import Store  # noqa: PLC0415 (few recipes take in a stored image)

    trusted, shared = request.trusted_uids, request.shared_store
    return Store.open(Path(request.store), read_only=True, trusted_uids=trusted, shared=shared)


def _nodes(plan: Plan) -> Iterator[NodeSpec]:
    for job in plan.jobs.values():
        if job.role == NODE and job.kind == "image" and not job.nested:
            yield plan.node(job)


def _missing(wanted: Sequence[NodeSpec], request: Request) -> Iterator[Problem]:
    if not Path(request.store, "meta.json").exists():
        yield from (_problem(spec, request.store, ()) for spec in wanted)
        return
    with _open(request) as store:
        for spec in wanted:
            try:
                found = store.image(spec.params.image)
            except UsageError as error:
                origin = spec.origin_of("image")
                yield Problem(f"{spec.name}: {error.brief}", error.details, error.resolution, origin)
            else:
                if found is None:
                    yield _problem(spec, request.store, store.refs())


def _problem(spec: NodeSpec, store: str, known: Iterable[str]) -> Problem:
    from cfsbuild.recipe.problems import suggestion  # noqa: PLC0415 (only when something is wrong)

    return Problem(
        f"{spec.name}: there is no image {spec.params.image!r} in the store {store}",
        resolution=suggestion(spec.params.image, known, what="images"),
        origin=spec.origin_of("image"),
    )
