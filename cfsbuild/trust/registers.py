"""The platform configuration registers of a Linux PC: their numbers, and what they are about, for people.

Source: UAPI Group, "Linux TPM PCR Registry"; TCG "PC Client Platform Firmware Profile".
"""

from __future__ import annotations

import re

REGISTER = re.compile(r"[0-9]|1[0-9]|2[0-3]")
"""The whole of a register's number as text: 0 to 23, without leading zeros."""

KERNEL_PCR = 11
"""The register of what is in a UKI."""

_ABOUT = {
    0: "the firmware's code: changes with firmware updates",
    1: "the firmware's settings and the hardware: changes with boot order, memory, devices",
    2: "code of extension cards: changes with option ROMs",
    3: "settings of extension cards",
    4: "boot loader and UKI as they were started: changes with their updates, and the way to boot",
    5: "partition table and settings of the boot loader: changes with partitioning",
    6: "the maker's own use, such as resuming from sleep",
    7: "Secure Boot: changes when it is switched, and with updates of db, dbx and shim",
    8: "commands of GRUB and the kernel's command line",
    9: "initrds and what GRUB reads: changes with each new initrd",
    10: "IMA: changes with each file that it measures",
    11: "what is in the UKI, and how far booting is: changes with each UKI and each phase of systemd",
    12: "command line, credentials and add-ons given to the UKI",
    13: "system extensions given to the initrd",
    14: "keys that shim knows (MOK)",
    15: "the machine's identity: volume keys, machine id, and what was mounted in this boot",
    16: "for debugging: anybody can reset it",
    23: "for applications: anybody can reset it",
}
_DYNAMIC_LAUNCH = "dynamic launch (Intel TXT, AMD SKINIT)"


def about(pcr: int) -> str:
    """Say what a register (0 to 23) holds, and what usually changes it."""
    return _ABOUT.get(pcr, _DYNAMIC_LAUNCH)
