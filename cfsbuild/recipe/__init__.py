"""From TOML text to a typed recipe with origins."""
