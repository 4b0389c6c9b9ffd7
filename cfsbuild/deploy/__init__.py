"""The machine that uses the image: `mount` goes the whole way from a `spec`.

`sequence` are the system calls of a mount in order, `syscalls` and `loop` make them, `namespace` runs a
command inside an image.

How a machine starts: `boot_config`, `early`, `provision`, `switch_root`, `boot_report`. A virtual one:
`guest_kernel`, `kvm`, `state_disk`, `machine`.
"""
