"""The HTTP edge: wire formats in and out, and nothing that computes tokens."""

from salver.gateway.app import create_app
from salver.gateway.server import CannotListen, listen, serve
from salver.gateway.service import ChatTemplate, Limits, Served, Tokenizer

__all__ = [
    "CannotListen",
    "ChatTemplate",
    "Limits",
    "Served",
    "Tokenizer",
    "create_app",
    "listen",
    "serve",
]
