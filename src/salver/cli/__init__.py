"""Parses, wires, prints: the composition root, the only reader of the environment."""

from salver.cli.app import main

__all__ = ["main"]
