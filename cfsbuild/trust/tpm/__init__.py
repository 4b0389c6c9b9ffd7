"""TPM 2.0, and nothing of this project: structures, policies, sealing for a TPM elsewhere, and a client.

- `numbers` (names of algorithms, attributes, comparisons), `wire` (reading and writing bytes), `structures`
  (public areas, Names, signatures), `kdf` (KDFa, KDFe, secrets for the owner of a key);
- `policy` (what a policy's digest is), `offline` (seal to a TPM's parent key without that TPM);
- `transport` (bytes there and back), `session` (salts, HMACs, encryption, with `cfb`), `connection`
  (commands, resending, flushing), `commands`, `policy_commands`, `nv` and `pcr` (one function a command),
  `command_codes`, `response_codes`.

Sources are the parts of the "Trusted Platform Module Library" specification, family 2.0, revision 1.59.
"""
