"""fs-verity digests: computed here, and measured or enabled by the kernel."""
