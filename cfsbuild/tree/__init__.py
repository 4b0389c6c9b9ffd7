"""The file-system tree as data: nothing here touches an image or a store.

- what a tree is: `paths`, `inode`, `layer`; metadata of files: `acl`, `capabilities`, `selinux`;
- from layers to one tree: `merge`, with `conflicts`, `links`, `provenance`, `cycles`; trees compared: `diff`;
- as text: `flavour` (tree to dump and back), `dump`, `dumpfields`; as an archive: `cpio`;
- patterns for paths: `globs`;
- from a directory of the host: `scan`, and `walk`, which does the same without the extension module.
"""
