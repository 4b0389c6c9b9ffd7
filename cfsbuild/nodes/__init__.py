"""Node kinds: what goes into the tree."""
