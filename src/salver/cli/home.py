"""What the environment says: where Salver keeps its files and its state, which path its core takes."""

import os
from pathlib import Path

from salver.contract.faults import Fault
from salver.errors import ContractError


def salver_home() -> Path:
    """`$SALVER_HOME`, or `~/.cache/salver`. Not created here."""
    named = os.environ.get("SALVER_HOME")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "salver"


def store_root() -> Path:
    """The directory of the artifact store."""
    return salver_home() / "store"


def state_url() -> str:
    """`$SALVER_STATE`, or a SQLite file beside the store.

    It may hold a password, which is why it is read from here and not from a contract or an option.
    """
    return os.environ.get("SALVER_STATE") or f"sqlite:///{salver_home() / 'state.db'}"


def decisions_path() -> Path:
    """The file of the log of decisions."""
    return salver_home() / "decisions.db"


def api_key() -> str | None:
    """`$SALVER_API_KEY`: the key that this command sends as a client."""
    return os.environ.get("SALVER_API_KEY") or None


def bearer_in(variable: str) -> str:
    """The key of another server, from the variable that the contract names.

    Raises:
        ContractError: it is not set.
    """
    key = os.environ.get(variable)
    if not key:
        raise ContractError(
            f"the contract takes a server's key from ${variable}, which is not set here"
        )
    return key


def forced_isa() -> str | None:
    """`$SALVER_ISA`: a slower path of the native core, such as `avx2`, to be taken anyway.

    Without the native core there are no paths, and nothing to hold it against.

    Raises:
        ContractError: this build has no such path on this machine.
    """
    asked = os.environ.get("SALVER_ISA")
    if not asked:
        return None
    from salver.engine.runners import choice  # only where it is set: it takes NumPy

    paths = choice.native_paths()
    if not paths or asked in paths:
        return asked
    fix = f"set it to one of {', '.join(paths)}, or unset it for the fastest of them, {paths[-1]}"
    raise ContractError(
        f"SALVER_ISA asks for a path of the native core that is not here: {asked}",
        (Fault("SALVER_ISA", asked, "machine.isa", fix),),
    )
