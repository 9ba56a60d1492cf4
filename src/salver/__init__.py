"""Salver: contract-first model serving."""

__version__ = "0.1.0"
