"""TPM 2.0, and nothing of this project: structures, policies, and sealing for a TPM that is elsewhere.

- `numbers` (names of algorithms, attributes, commands), `wire` (reading and writing bytes), `structures`
  (public areas, Names, signatures), `kdf` (KDFa, KDFe);
- `policy` (what a policy's digest is), `offline` (seal to a TPM's parent key without that TPM).

Sources are the parts of the "Trusted Platform Module Library" specification, family 2.0, revision 1.59.
"""
