"""Trust: keys, signed documents, what they say about images and mounts, and sealing to TPMs.

- `keys` (what a key is), `key_files` (where it lies), `files` (reading with bounds), `process` (what a
  process that holds a key must not do);
- `canonical` (documents with one encoding only), `dsse` (signed documents), `statement` (what is signed of an
  image);
- `fsverity_signature` (the PKCS#7 signature that kernels and composefs-rs know), `pkcs7` (its one form),
  `der` (what that is written in);
- `bundle`: the mount bundle, from which a machine knows what to mount;
- `tpm`: a package of its own, which knows TPMs only;
- `unseal_policy` (when a TPM releases something), `sealed` (what is encrypted to TPMs), `sealing` (the files
  that carry a bundle to machines);
- `enrolment` (what a machine's TPM is), `storage_key` and `counter` (what it keeps), `unsealing` (running a
  policy there), `explanation` and `registers` (why it does not hold), `tools_script` (for tpm2-tools);
- `uki` (what a kernel image measures), `pcr_signature`, `credential`, `pcrlock` (what systemd understands;
  and what a mount extends PCR 15 by).

Nothing here believes a document about itself: the keys that may sign it, and what it is about, come from the
caller.
"""
