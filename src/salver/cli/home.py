"""What the environment says: where Salver keeps its files, and which path its core is to take."""

import os
from pathlib import Path


def salver_home() -> Path:
    """`$SALVER_HOME`, or `~/.cache/salver`. Not created here."""
    named = os.environ.get("SALVER_HOME")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "salver"


def store_root() -> Path:
    """The directory of the artifact store."""
    return salver_home() / "store"


def forced_isa() -> str | None:
    """`$SALVER_ISA`: a slower path of the native core, such as `avx2`, to be taken anyway."""
    return os.environ.get("SALVER_ISA") or None
