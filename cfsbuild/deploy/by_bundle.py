"""The whole way from a bundle's file to a mounted image, as a machine goes it when it starts.

What a machine believes and has is in an `Order`; nothing of it comes from the bundle.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from cfsbuild.deploy import bundle_file, bundle_mount, machine_check
from cfsbuild.deploy.bundle_mount import Policy
from cfsbuild.deploy.mount import Mounted
from cfsbuild.deploy.secrets import secrets_written
from cfsbuild.trust.bundle import OpenedBundle, secrets_of
from cfsbuild.trust.enrolment import Enrolment
from cfsbuild.trust.tpm.connection import Tpm
from cfsbuild.trust.unsealing import no_pin


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to mount and whom to believe.

    `base` is the file system with objects and state, `unseal_policy` the policy of a sealed bundle (None:
    beside it), `secrets` where secrets are written (None: nowhere). `enrolled` is what the machine knows of
    itself.
    """

    file: Path
    base: Path
    policy: Policy
    unseal_policy: Path | None = None
    enrolled: Enrolment | None = None
    secrets: Path | None = None


def open_bundle(order: Order, tpm: Tpm | None, pin: Callable[[], bytes] = no_pin) -> OpenedBundle:
    """Return the bundle: unsealed if it is sealed, verified in any case, and for this machine.

    Raises what `unseal_envelope`, `accept` and `check_machine` raise.
    """
    if bundle_file.is_sealed(order.file):
        envelope = bundle_file.unseal_envelope(
            order.file, tpm, policy=order.unseal_policy, enrolled=order.enrolled, pin=pin
        )
    else:
        envelope = bundle_file.read_envelope(order.file)
    opened = bundle_mount.accept(envelope, order.policy)
    machine_check.check_machine(opened.bundle, tpm, order.enrolled)
    return opened


def mount_opened(order: Order, opened: OpenedBundle, target: Path, tpm: Tpm | None) -> Mounted:
    """Mount what was opened at `target`, write its secrets, and let PCR 15 say so; all of it or nothing.

    Raises what `mount_accepted`, `secrets_written` and `record_mount` raise.
    """

    def finish() -> None:
        with contextlib.ExitStack() as undo:
            if order.secrets is not None:
                undo.enter_context(secrets_written(secrets_of(opened.bundle), order.secrets))
            if tpm is not None:
                machine_check.record_mount(opened.bundle, tpm, order.enrolled)

    return bundle_mount.mount_accepted(
        opened.bundle, order.base, target, allow_insecure=order.policy.allow_insecure, finish=finish
    )
