"""The file-system tree as data."""
