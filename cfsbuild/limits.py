"""Bounds on what is accepted from outside. Each is far above honest use and far below harm."""

from __future__ import annotations

RACY_NS = 2 * 10**9
"""What changed less than this before it was looked at, in ns, may change again and look the same: file
systems count time in ticks, the coarsest of two seconds."""

NAME_BYTES = 255
"""Longest file name, in bytes (Linux NAME_MAX)."""

PATH_BYTES = 4095
"""Longest path and longest symlink target, in bytes (Linux PATH_MAX without its NUL)."""

PATH_DEPTH = 256
"""Deepest nesting of directories in a tree."""

TREE_ENTRIES = 5_000_000
"""Most names in one tree, layer, archive or image."""

XATTR_NAME_BYTES = 255
XATTR_VALUE_BYTES = 65535
XATTR_INODE_BYTES = 32767
"""Most bytes of xattrs on one inode, counted as composefs does: 12 + sum(7 + name + value)."""

INLINE_BYTES = 64
"""Regular files of 1 to this many bytes are inline in a layer and in a composefs image."""

INLINE_BYTES_MAX = 5000
"""Longest inline content that an image may carry."""

IMAGE_BYTES = 2**31
"""Largest metadata image that the reader opens."""

FILE_BYTES = 1024 * 2**43
"""Largest file that a composefs image can describe (1024 chunks of 2^43 bytes)."""

INPUT_BYTES = 16 * 2**30
"""Most bytes that one archive may expand to."""

EXPANSION_RATIO = 200
EXPANSION_FREE_BYTES = 64 * 2**20
"""An archive may expand by more than EXPANSION_RATIO only up to this many bytes."""

DUMP_LINE_BYTES = 2**20
TOML_BYTES = 2**20
TOML_KEY_PARTS = 32
TEMPLATE_OUTPUT_BYTES = 64 * 2**20
DOCUMENT_BYTES = 2**31
