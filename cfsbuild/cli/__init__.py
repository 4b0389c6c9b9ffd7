"""The command line: one module per verb (`verbs` is the table), and what they share.

- start and end: `main`, `signals`, `streams`, `funnel` (every error ends here), `errors_text`;
- click: `group` (the root), `lazy`, `settings` (global options), `config` (files), `completion`;
- arguments: `recipes`, `images`, `stores`, `lookup` and `contents` (inside an image), `accounts`, `mounting`,
  `passphrases`, `tpms`, `signatures` (where they lie, and whose count), `completing`;
- signing: `sign_choice` (what the options say), `sign_subject` (what is signed), `sign_sources` (where
  signatures come from), `sign_document`, `sign_fsverity`, `sign_export`; bundles: `bundle_mounting`,
  `verify_bundle`;
- what people see: `output`, `output_file`, `render`, `listeners`, `progress`, `plan_text`, `changes`,
  `store_text`, `graph_text`, `graph_svg`, `graph_layout`; `facts` is for `diff` and `explain`, `checks` for
  `doctor`, `tar_writer` for `export`; `reference` renews docs/cli.md;
- in an initramfs: `boot`, the first process of a machine; `boot_systemd` where that is systemd; machines of
  `vm`: `vm_trust`, whom they trust;
- like the C tools: `mkcomposefs` (with `directory_dump`), `composefs_info`, `mount_composefs`, `refusal`.
"""
