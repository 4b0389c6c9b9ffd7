"""Recipes that come with cfsbuild."""
