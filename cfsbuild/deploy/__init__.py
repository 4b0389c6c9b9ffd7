"""The machine that uses the image: what it believes, how it mounts, how it starts.

- `spec` (what to mount), `mount` (goes the whole way), `sequence` (the system calls in order), `attach`,
  `syscalls` and `loop` (make them), `namespace` (runs a command inside an image);
- `by_bundle` (from a bundle's file to a mounted image), `bundle_file` (reading it, sealed or not),
  `bundle_spec` (the mount that it declares), `bundle_mount` (whom a machine trusts, and the mount),
  `machine_check` (what its TPM says, and is told), `kernel_features`, `state` (what stays writable),
  `machine_id`, `secrets`;
- how a machine starts: `boot_config`, `boot_bundle`, `early`, `provision`, `switch_root`, `boot_report`;
- a virtual one: `guest_kernel`, `kvm`, `state_disk`, `software_tpm`, `machine`, `machine_end`,
  `host_programs`.
"""
