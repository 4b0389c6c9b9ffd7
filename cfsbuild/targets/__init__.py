"""Target kinds: what comes out.

- `kind` (what a kind is), `registry` (which there are);
- `image` with its `manifest`; `initramfs`;
- `bundle` (what a machine must know to mount the image), `bundle_sealing` (for the TPMs of machines),
  `renderings` (the same for other programs).
"""
