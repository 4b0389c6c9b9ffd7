"""File capabilities: cap_from_text(3) notation to the bytes of `security.capability`.

Layout: `struct vfs_cap_data` and `vfs_ns_cap_data` of linux/capability.h, all little-endian 32-bit words:
magic (revision in the top byte, bit 0 "effective"), then permitted and inheritable for capabilities 0-31,
then for 32-63; revision 3 adds the uid, seen from the initial user namespace, of the namespace's root.
"""

from __future__ import annotations

import struct

from cfsbuild.errors import InputError

XATTR = b"security.capability"

NAMES = (
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
)
"""Capability names without `cap_`, by number."""

_REVISION_2 = 0x02000000
_REVISION_3 = 0x03000000
_EFFECTIVE = 1
_ALL = (1 << len(NAMES)) - 1
_NUMBERS = {"cap_" + name: number for number, name in enumerate(NAMES)}
_OPERATORS = "=+-"
_FLAGS = "eip"


def encode_capabilities(text: str, *, rootid: int | None = None) -> bytes:
    """Return the xattr's value for clauses such as `cap_net_raw,cap_net_admin+ep`.

    With `rootid` the capabilities count only in user namespaces whose root is that uid (revision 3). Raises
    `InputError` for a syntax error, an unknown capability, no capability at all, and an effective set that
    holds some of the others but not all, which a file cannot express.
    """
    sets = {"e": 0, "i": 0, "p": 0}
    clauses = text.split()
    for clause in clauses:
        _apply(clause, sets)
    either = sets["p"] | sets["i"]
    if not either:
        raise InputError(
            f"capabilities {text!r} grant nothing", resolution="leave them out, or remove the xattr"
        )
    if sets["e"] and either & ~sets["e"]:
        raise InputError(
            f"capabilities {text!r} make only some of them effective",
            details="on a file, effective is one bit: give e to all capabilities, or to none",
        )
    words = struct.pack(
        "<5I",
        (_REVISION_2 if rootid is None else _REVISION_3) | (_EFFECTIVE if sets["e"] else 0),
        sets["p"] & 0xFFFFFFFF,
        sets["i"] & 0xFFFFFFFF,
        sets["p"] >> 32,
        sets["i"] >> 32,
    )
    return words if rootid is None else words + struct.pack("<I", rootid)


def _apply(clause: str, sets: dict[str, int]) -> None:
    """Apply one clause: a list of capabilities, then operators with flags."""
    start = next((index for index, char in enumerate(clause) if char in _OPERATORS), None)
    if start is None:
        raise InputError(
            f"capability clause {clause!r} has none of = + -", resolution='write it like "cap_net_raw+ep"'
        )
    names = clause[:start].lower()
    mask = _ALL if names in {"", "all"} else _mask(names, clause)
    if not names and clause[start] != "=":
        raise InputError(
            f"capability clause {clause!r} names no capability", resolution='write "all" for all'
        )
    rest = clause[start:]
    while rest:
        operator, flags = rest[0], ""
        rest = rest[1:]
        while rest and rest[0] not in _OPERATORS:
            flags, rest = flags + rest[0], rest[1:]
        if set(flags) - set(_FLAGS):
            raise InputError(f"capability clause {clause!r} has a flag other than e, i and p")
        if not flags and operator != "=":
            raise InputError(f"capability clause {clause!r} has no flag after {operator}")
        for flag in _FLAGS:
            if operator == "=":
                sets[flag] &= ~mask
            if flag in flags:
                sets[flag] = sets[flag] & ~mask if operator == "-" else sets[flag] | mask


def _mask(names: str, clause: str) -> int:
    mask = 0
    for name in names.split(","):
        if name not in _NUMBERS:
            import difflib  # noqa: PLC0415 (only for an error's text)

            close = difflib.get_close_matches(name, _NUMBERS, n=1)
            raise InputError(
                f"there is no capability {name!r} (in {clause!r})",
                resolution=f"did you mean {close[0]}?" if close else "see capabilities(7)",
            )
        mask |= 1 << _NUMBERS[name]
    return mask
