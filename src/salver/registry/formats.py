"""Which files may enter the store: formats that are data, never formats that run code when read.

Unpickling executes what the file says (Python documentation, `pickle`). A pickle is refused by its
name before anything is fetched, and by its first bytes once they are here; the second check covers
pickle protocols 2 to 5, and zip archives, in which `torch.save` puts pickles. Protocols 0 and 1 have
no signature and rest on the first check; no loader in Salver unpickles anything in any case.
"""

from pathlib import PurePosixPath

from salver.errors import IntegrityError

RUNNABLE_SUFFIXES = frozenset(
    {".bin", ".ckpt", ".dill", ".joblib", ".pickle", ".pkl", ".pt", ".pth"}
)
_TREE_SUFFIXES = frozenset({".jinja", ".json", ".model", ".safetensors", ".txt"})
_ZIP = b"PK\x03\x04"
HEAD_BYTES = 4


def runnable_name(name: str) -> bool:
    """Whether a file of this name would be unpickled by whoever wrote it."""
    return PurePosixPath(name.lower()).suffix in RUNNABLE_SUFFIXES


def refuse_runnable(head: bytes) -> None:
    """Hold the first `HEAD_BYTES` bytes of a file against the signatures of code-carrying formats.

    Raises:
        IntegrityError: they are those of a pickle or of a zip archive.
    """
    pickled = len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5
    if pickled or head.startswith(_ZIP):
        raise IntegrityError(
            f"the file begins as a {'pickle' if pickled else 'zip archive'}, "
            "a format that can run code when it is read",
            rule="registry.no_code",
            value=head.hex(" "),
            fix="use the model's GGUF or safetensors form",
        )


def belongs_in_tree(name: str) -> bool:
    """Whether a directory's file is part of the model: weights, configuration, tokenizer.

    The rule is one for local directories and hub repositories, so that a clone and the repository
    it came from have the same digest.
    """
    flat = "/" not in name and not name.startswith(".")
    return flat and PurePosixPath(name).suffix in _TREE_SUFFIXES
