"""Where Salver keeps its own files."""

import os
from pathlib import Path


def salver_home() -> Path:
    """`$SALVER_HOME`, or `~/.cache/salver`. Not created here."""
    named = os.environ.get("SALVER_HOME")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "salver"


def store_root() -> Path:
    """The directory of the artifact store."""
    return salver_home() / "store"
