"""The two example contracts, which every test here starts from."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def full_text() -> str:
    """The contract that has every section."""
    return (EXAMPLES / "full.yaml").read_text()


@pytest.fixture(scope="session")
def short_text() -> str:
    """The contract that the README serves."""
    return (EXAMPLES / "smollm2-numpy.yaml").read_text()
