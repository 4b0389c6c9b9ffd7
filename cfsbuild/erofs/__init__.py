"""composefs images: EROFS files that hold only metadata (`docs/formats/image.md`).

- writing: `writer` is the way in; `native/` does it, and in pure Python `inodes` (the tree), `layout`
  (places), `xattrs` and `image` (bytes) do the same;
- reading, without trust: `reader` is the way in; `superblock`, `reader_inodes`, `reader_xattrs`,
  `reader_directories`, `reader_entries`; `extents` finds parts that overlap, `damage` words what is wrong;
- `format` has the numbers of both, `verify` reads an image and writes it again.
"""
