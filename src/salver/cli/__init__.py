"""Parses, wires, prints: the composition root, the only reader of the environment."""
