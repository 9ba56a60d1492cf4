"""Immutable artifacts by digest."""
