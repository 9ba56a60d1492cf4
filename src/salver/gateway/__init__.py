"""The HTTP edge: wire formats in and out, and nothing that computes tokens."""

from salver.gateway.app import create_app
from salver.gateway.server import listen, serve
from salver.gateway.service import Limits, Served
from salver.gateway.tenancy import StoreThreads, Tenancy

__all__ = [
    "Limits",
    "Served",
    "StoreThreads",
    "Tenancy",
    "create_app",
    "listen",
    "serve",
]
