"""Why a job runs, as data: the difference between the components of two keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

FIRST_BUILD: Final = "first-build"
PARAMETER: Final = "parameter-changed"
SOURCE: Final = "source-changed"
OWNER: Final = "owner-changed"
INPUT: Final = "input-changed"
KIND: Final = "kind-changed"
EPOCH: Final = "epoch-changed"
ALGORITHM: Final = "algorithm-changed"
FORMAT: Final = "format-changed"
ORDER: Final = "order-changed"
IMAGE: Final = "image-changed"
FORCED: Final = "forced"
RESULT_MISSING: Final = "result-missing"
OUTPUT_MISSING: Final = "output-missing"
INPUT_PENDING: Final = "input-pending"

_BY_PREFIX = {
    "param": PARAMETER,
    "source": SOURCE,
    "user": OWNER,
    "group": OWNER,
    "input": INPUT,
    "layer": INPUT,
    "kind": KIND,
    "kind-version": KIND,
    "epoch": EPOCH,
    "algorithm": ALGORITHM,
    "format": FORMAT,
    "order": ORDER,
    "image": IMAGE,
}

_TEXTS = {
    FIRST_BUILD: "first build",
    INPUT: "the tree that it reads changed",
    ORDER: "layers are merged in another order or with other rights",
    FORCED: "forced",
    RESULT_MISSING: "its result, or objects of it, are no longer in the store",
}


_FORMS = {
    INPUT: "{subject} gave another output",
    INPUT_PENDING: "depends on what {subject} will give",
    OUTPUT_MISSING: "{subject} is missing or was altered",
    KIND: "{subject} was {before}, is {after}",
}


class Reason(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One reason. `reason` is a stable word; `subject` the parameter, source, user, node or file it is about.

    `before` and `after` are component values: canonical JSON for parameters, digests for sources and inputs;
    empty where there was or is none.
    """

    reason: str
    subject: str = ""
    before: str = ""
    after: str = ""

    def text(self) -> str:
        """Return the reason as part of a sentence, without the node's name."""
        if self.reason in _TEXTS and not self.subject:
            return _TEXTS[self.reason]
        if self.reason == SOURCE:
            verb = "is new" if not self.before else "is gone" if not self.after else "changed"
            name = "source" if self.subject == "source" else f"source {self.subject}"
            return f"{name} {verb}"
        form = _FORMS.get(self.reason)
        if form is not None:
            return form.format(subject=self.subject, before=self.before, after=self.after)
        return _changed(self.subject or self.reason.removesuffix("-changed"), self.before, self.after)


def _changed(subject: str, before: str, after: str) -> str:
    return f"{subject}: {_short(before) or '(absent)'} → {_short(after) or '(absent)'}"


def _short(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Reason, ...]:
    """Return what differs between two keys' components, in the order of the components' names."""
    reasons = []
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name, ""), after.get(name, "")
        if old == new:
            continue
        prefix, _, subject = name.partition(".")
        if prefix in {"user", "group"}:
            subject = f"{prefix} {subject}"
        elif prefix in {"kind", "kind-version"}:
            subject = prefix.replace("-", " ")
        reasons.append(Reason(reason=_BY_PREFIX[prefix], subject=subject, before=old, after=new))
    return tuple(reasons)


def sentence(reasons: tuple[Reason, ...]) -> str:
    """Return all reasons on one line; the inputs that are waited for as one list."""
    waits = [reason.subject for reason in reasons if reason.reason == INPUT_PENDING]
    texts = [reason.text() for reason in reasons if reason.reason != INPUT_PENDING]
    if waits:
        texts.append(f"depends on what {', '.join(waits)} will give")
    return "; ".join(texts)


def with_nodes(
    found: tuple[Reason, ...], before: Mapping[str, str], after: Mapping[str, str]
) -> tuple[Reason, ...]:
    """Replace "the input changed" by one reason for each job whose output differs between two builds."""
    named: list[Reason] = []
    for reason in found:
        changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        if reason.reason != INPUT or reason.subject or not changed:
            named.append(reason)
            continue
        named.extend(
            Reason(reason=INPUT, subject=name, before=before.get(name, ""), after=after.get(name, ""))
            for name in changed
        )
    return tuple(named)
