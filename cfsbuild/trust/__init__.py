"""Trust: keys, signed documents, and what they say about an image.

- `keys` (what a key is), `key_files` (where it lies), `files` (reading with bounds), `process` (what a
  process that holds a key must not do);
- `canonical` (documents with one encoding only), `dsse` (signed documents), `statement` (what is signed of an
  image);
- `fsverity_signature` (the PKCS#7 signature that kernels and composefs-rs know), `pkcs7` (its one form),
  `der` (what that is written in).

Nothing here believes a document about itself: the keys that may sign it, and what it is about, come from the
caller.
"""
