"""Names that a package imports late are there all the same."""

from importlib import import_module
from inspect import ismodule

import pytest

PACKAGES = ["salver.contract", "salver.models", "salver.registry", "salver.state", "salver.worker"]


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_is_found(name: str) -> None:
    package = import_module(name)
    for _ in range(2):  # a submodule, once imported, does not hide a function of its name
        found = [getattr(package, each) for each in package.__all__]
        assert not any(map(ismodule, found))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"salver\.registry.*nothing"):
        getattr(import_module("salver.registry"), "nothing")  # noqa: B009 - mypy knows better
