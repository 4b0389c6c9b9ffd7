"""What docs/compat.md says about the C tool is true: it takes these dumps, and we refuse them."""

import lab
import pytest

from cfsbuild.erofs.writer import write_dump
from cfsbuild.errors import InputError

pytestmark = pytest.mark.lab

ROOT = b"/ 0 40755 2 0 0 0 0.0 - - -\n"
DIGEST = b"00112233445566778899aabbccddeeff" * 2
TAKEN = {
    "hard link to a directory": b"/d 0 40755 2 0 0 0 0.0 - - -\n/h 0 @100644 1 0 0 0 0.0 /d - -\n",
    "digest that is no hex": b"/f 65 100644 1 0 0 0 0.0 a - " + b"zz" * 32 + b"\n",
    "digest that is too long": b"/f 65 100644 1 0 0 0 0.0 a - " + DIGEST + b"00\n",
    "gid that is no number": b"/f 0 100644 1 1 x 0 0.0 - - -\n",
    "sign": b"/f 0 100644 1 +1 0 0 0.0 - - -\n",
    "number out of range": b"/f 0 100644 1 4294967296 0 0 0.0 - - -\n",
    "too many nanoseconds": b"/f 0 100644 1 0 0 0 0.1000000000 - - -\n",
    "size without content": b"/f 65 100644 1 0 0 0 0.0 - - -\n",
    "backing path that leads out": b"/f 65 100644 1 0 0 0 0.0 ../x - -\n",
    "content of a directory": b"/d 3 40755 2 0 0 0 0.0 - abc -\n",
    "NUL in a path": b"/f\\x00g 0 100644 1 0 0 0 0.0 - - -\n",
    "space at the end": b"/f 0 100644 1 0 0 0 0.0 - - - \n",
    "deep path": b"".join(b"/d" * depth + b" 0 40755 2 0 0 0 0.0 - - -\n" for depth in range(1, 258)),
}


@pytest.mark.parametrize("case", TAKEN)
def test_the_c_tool_takes_what_we_refuse(case):
    lab.require("mkcomposefs")
    text = ROOT + TAKEN[case]
    theirs = lab.run("mkcomposefs", "--from-file", "-", "-", stdin=text)
    assert theirs.returncode == 0, theirs.stderr
    with pytest.raises(InputError):
        write_dump(text.splitlines(keepends=True), format=0, max_format=1)
