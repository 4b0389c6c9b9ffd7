"""TPM_CC: the commands that are used here (part 2, 6.5.2)."""

from __future__ import annotations

import enum


class CommandCode(enum.IntEnum):
    """A command's number; the name is that of the specification."""

    EVICT_CONTROL = 0x120
    NV_DEFINE_SPACE = 0x12A
    CREATE_PRIMARY = 0x131
    NV_INCREMENT = 0x134
    NV_READ = 0x14E
    POLICY_NV = 0x149
    IMPORT = 0x156
    LOAD = 0x157
    UNSEAL = 0x15E
    FLUSH_CONTEXT = 0x165
    LOAD_EXTERNAL = 0x167
    NV_READ_PUBLIC = 0x169
    POLICY_AUTHORIZE = 0x16A
    POLICY_AUTH_VALUE = 0x16B
    POLICY_OR = 0x171
    READ_PUBLIC = 0x173
    START_AUTH_SESSION = 0x176
    VERIFY_SIGNATURE = 0x177
    GET_CAPABILITY = 0x17A
    GET_RANDOM = 0x17B
    PCR_READ = 0x17E
    POLICY_PCR = 0x17F
    PCR_EXTEND = 0x182
    POLICY_RESTART = 0x180
    POLICY_GET_DIGEST = 0x189

    @property
    def text(self) -> str:
        """Return the name as the specification writes it, for messages."""
        words = self.name.split("_")
        return "TPM2_" + "".join(word if word in {"NV", "PCR", "OR"} else word.title() for word in words)


GIVE_HANDLES = frozenset(
    {
        CommandCode.CREATE_PRIMARY,
        CommandCode.LOAD,
        CommandCode.LOAD_EXTERNAL,
        CommandCode.START_AUTH_SESSION,
    }
)
"""Commands that load something, whose response begins with its handle."""
