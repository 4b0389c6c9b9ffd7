"""A strict streaming reader of tar archives (v7, ustar, pax, GNU); input is hostile until proven good."""
