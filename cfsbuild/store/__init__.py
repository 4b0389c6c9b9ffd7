"""The shared store: objects, node results, layers, images and references (`docs/formats/store.md`).

`store` opens one and reads from it, `transaction` adds to it. Below them:

- places and names: `layout`; making and opening: `create`, `access`, `meta`, `place`;
- adding: `staging`, `gate`, `sources`, `publish`, `durability`;
- adding local directories: `ingest`, `statcache`, `statfile`, `sink`;
- reading: `objects`, `documents`, `results`, `images`, `contents`; fs-verity: `verity`, `enforce`;
- several processes: `locks`, `leases`; removing: `mark`, `gc`;
- checking: `fsck` and `fsck_objects`, `fsck_images`, `fsck_documents`, `findings`; mending: `repair`;
- facts: `info`; the operating system: `syscalls`, `faults`, `replacing`, `cloning`.
"""
