"""Packages that import a part of themselves only when it is asked for.

A worker needs the values that cross a boundary, not the contract's schema; the store, not the ways to
fill it. What it does not import it need not wait for at every start.
"""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazily(package: str, home: Mapping[str, str]) -> Callable[[str], object]:
    """A module `__getattr__` (PEP 562) for a package's names.

    Args:
        package: the package's own name.
        home: for each name, the module of the package that defines it.
    """

    def find(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{home[name]}"), name)

    return find
