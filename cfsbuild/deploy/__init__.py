"""The machine that uses the image."""
