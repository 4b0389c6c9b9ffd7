"""Node kinds: what goes into the tree.

`kind` says what a kind is, `registry` lists them, `metadata` is what they do alike. Each kind has a module
of its own name; `tree` needs `treefilter` and `treelisting`, `archive` needs `decompress`, `zstdframes` and
`tar`, `accounts` needs `account_params` and `account_files`, `attributes` needs `attribute_rules` and
`symbolic_mode`, `programs` and `python` need `hostfiles`, `libraries` and `elf`, `python` runs
`python_closure` in a process of its own.
"""
