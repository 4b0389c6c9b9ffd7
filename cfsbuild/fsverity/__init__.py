"""fs-verity: `digest` computes what the kernel would measure, `kernel` asks the kernel itself.

`algorithm` names the hashes, `merkle` is the tree over blocks, `plain` hashes with hashlib, `pool` hashes
many files in worker processes where there is no extension module.
"""
