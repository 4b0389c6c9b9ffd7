"""Target kinds: what comes out."""
