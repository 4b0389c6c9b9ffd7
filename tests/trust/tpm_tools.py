"""What a device does with tpm2-tools: make a storage key, take in what was sealed for it, run a policy, unseal.

After most commands what they loaded is flushed: swtpm has three places, and there is no resource manager.
"""

from pathlib import Path

from swtpm import Machine

from cfsbuild.trust.tpm.numbers import PERSISTENT_SRK
from cfsbuild.trust.tpm.offline import SealedObject
from cfsbuild.trust.tpm.structures import Public, decode_public
from cfsbuild.trust.tpm.wire import sized

KEY_TYPES = {"ecc": "ecc256:aes128cfb", "rsa": "rsa2048:aes128cfb", "aes256": "ecc256:aes256cfb"}
STORAGE = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt"
COUNTER_INDEX = 0x01800100

_SRK = f"{PERSISTENT_SRK:#x}"


class Device:
    """A machine, a directory for files, and the public area of its storage root key.

    The key is made, of this kind; without a kind it is there.
    """

    def __init__(self, machine: Machine, work: Path, kind: str = "") -> None:
        self.machine = machine
        self.work = work
        self.tool = machine.tool
        if kind:
            self.tool(
                *("createprimary", "-C", "o", "-g", "sha256", "-G", KEY_TYPES[kind], "-a", f"{STORAGE}|noda"),
                *("-c", work / "srk.ctx"),
            )
            self.tool("evictcontrol", "-C", "o", "-c", work / "srk.ctx", _SRK)
            self.flush()
        self.srk = self.public_of(_SRK)

    def flush(self) -> None:
        """Flush transient objects."""
        self.tool("flushcontext", "-t")

    def public_of(self, handle: object) -> Public:
        """Return the public area of a loaded key."""
        self.tool("readpublic", "-c", handle, "-o", self.work / "public")
        return decode_public((self.work / "public").read_bytes()[2:])

    def primary(self, attributes: str = STORAGE) -> Public:
        """Return the public area of another primary key on P-256, which is not kept."""
        context = self.work / "primary.ctx"
        self.tool(
            *("createprimary", "-C", "o", "-g", "sha256", "-G", KEY_TYPES["ecc"], "-a", attributes),
            *("-c", context),
        )
        self.flush()
        found = self.public_of(context)
        self.flush()
        return found

    def file(self, name: str, data: bytes) -> Path:
        """Write a file."""
        path = self.work / name
        path.write_bytes(data)
        return path

    def take_in(self, sealed: SealedObject, *, ok: bool = True) -> str:
        """Import and load; `unseal` is about what was loaded last."""
        public = self.file("sealed.pub", sized(sealed.public))
        duplicate = self.file("sealed.priv", sized(sealed.duplicate))
        seed = self.file("sealed.seed", sized(sealed.seed))
        said = self.tool(
            *("import", "-C", _SRK, "-u", public, "-i", duplicate, "-s", seed),
            *("-r", self.work / "imported"),
            ok=ok,
        )
        if ok:
            context = self.work / "sealed.ctx"
            self.tool("load", "-C", _SRK, "-u", public, "-r", self.work / "imported", "-c", context)
        self.flush()
        return said

    def unseal(self, *steps: tuple[object, ...], pin: str = "", refused: str = "") -> str:
        """Run a policy's steps in a session and unseal with it; return what the last command said.

        That is the command `refused`, if there is one: a step that must fail, or "unseal".
        """
        session = self.work / "session.ctx"
        self.tool("startauthsession", "--policy-session", "-S", session)
        try:
            for step in steps:
                # The session is used by all but those that prepare for it.
                of_session = ("-S", session) if step[0] not in {"loadexternal", "verifysignature"} else ()
                said = self.tool(step[0], *of_session, *step[1:], ok=step[0] != refused)
                if step[0] == refused:
                    return said
            auth = f"session:{session}+{pin}" if pin else f"session:{session}"
            return self.tool("unseal", "-c", self.work / "sealed.ctx", "-p", auth, ok=refused != "unseal")
        finally:
            self.tool("flushcontext", session)
            self.flush()

    def define_counter(self) -> int:
        """Make a counter that was incremented once; return its value."""
        attributes = "nt=counter|ownerwrite|ownerread|authread|authwrite|no_da"
        self.tool("nvdefine", COUNTER_INDEX, "-C", "o", "-s", 8, "-a", attributes)
        return self.increment()

    def increment(self) -> int:
        """Increment the counter; return its value."""
        self.tool("nvincrement", "-C", "o", COUNTER_INDEX)
        self.tool("nvread", "-C", "o", COUNTER_INDEX, "-o", self.work / "value")
        return int.from_bytes((self.work / "value").read_bytes(), "big")

    def counter_name(self) -> bytes:
        """Return the counter's Name."""
        said = self.tool("nvreadpublic", COUNTER_INDEX)
        return bytes.fromhex(said.split("name:")[1].split()[0])

    def extend(self, register: int) -> None:
        """Extend a register of the SHA-256 bank."""
        self.tool("pcrextend", f"{register}:sha256={'11' * 32}")
