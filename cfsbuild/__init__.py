"""Declarative builder of signed, verified composefs system images."""

__version__ = "0.1.0"
