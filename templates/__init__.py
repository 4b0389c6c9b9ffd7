"""Jinja2 templates that cfsbuild renders."""
