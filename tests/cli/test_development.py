"""What `salver serve MODEL` assumes, and what it says of it."""

from pathlib import Path

import pytest

from salver.cli import fit
from salver.cli.development import assume_contract
from salver.contract import load_deployment
from salver.engine.runners.choice import native_is_built
from salver.registry import ArtifactStore


def assumed(model: Path, home: Path) -> str:
    text, _ = assume_contract(model, ArtifactStore(home / "store"))
    return text


def comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]


def test_without_the_core_it_says_why_numpy_computes(
    tiny_gguf: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "native_is_built", lambda: False)
    text = assumed(tiny_gguf, home)
    _, why = comments(text)
    for part in ("no native core", "NumPy computes, which is slow", "install a C++20 compiler"):
        assert part in why
    assert load_deployment(text).release.runtime.engine == "numpy"


@pytest.mark.skipif(not native_is_built(), reason="needs the native core")
def test_with_the_core_it_says_nothing_of_it(tiny_gguf: Path, home: Path) -> None:
    text = assumed(tiny_gguf, home)
    assert len(comments(text)) == 1
    assert load_deployment(text).release.runtime.engine == "native"
