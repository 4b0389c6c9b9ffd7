"""Why nodes were, and would be, rebuilt: reasons as data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cfsbuild.build.forecast import Forecast, forecast
from cfsbuild.nodes.registry import NODE_KINDS
from cfsbuild.targets.registry import TARGET_KINDS

if TYPE_CHECKING:
    from cfsbuild.build.job import Plan
    from cfsbuild.build.memo import Request
    from cfsbuild.store.store import Store

WHY_VERSION = 1


def why(
    plan: Plan, request: Request, *, nodes: tuple[str, ...] = (), force: tuple[str, ...] | None = ()
) -> list[Forecast]:
    """Return what is to be said about `nodes` (all jobs when none are named), in the plan's order.

    Raises `UsageError` for a node that does not exist.
    """
    from cfsbuild.store.store import Store  # noqa: PLC0415 (the store may not be there yet)

    wanted = {plan.job(name).name for name in nodes} or set(plan.jobs)
    path = Path(request.store)
    if (path / "meta.json").exists():
        trusted, shared = request.trusted_uids, request.shared_store
        with Store.open(path, read_only=True, trusted_uids=trusted, shared=shared) as store:
            found = _forecast(plan, store, request, force)
    else:
        found = _forecast(plan, None, request, force)
    return [one for one in found if one.job in wanted]


def _forecast(
    plan: Plan, store: Store | None, request: Request, force: tuple[str, ...] | None
) -> list[Forecast]:
    return forecast(
        plan,
        store,
        node_kinds=NODE_KINDS,
        target_kinds=TARGET_KINDS,
        store_path=Path(request.store),
        output=Path(request.output),
        force=force,
    )
