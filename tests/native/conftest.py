"""`SALVER_NATIVE=FILE` gives these tests another build of the core; `make sanitize` gives its own."""

import importlib.util
import os
import sys
from pathlib import Path


def take_core(path: Path) -> None:
    """Let `salver._native` be the module in this file, ahead of the installed one."""
    name = "salver._native"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module


if given := os.environ.get("SALVER_NATIVE"):
    assert "salver._native" not in sys.modules
    take_core(Path(given))
