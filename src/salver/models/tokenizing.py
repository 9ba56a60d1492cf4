"""The tokenizer that goes with a checkpoint, from wherever its format keeps it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from salver.errors import MalformedModel
from salver.models.checkpoint import Checkpoint
from salver.models.detokenizer import Detokenizer
from salver.models.gguf_checkpoint import GgufCheckpoint
from salver.models.gguf_tokenizer import detokenizer_from_gguf, tokenizer_from_gguf
from salver.models.hf_tokenizer import detokenizer_from_directory, tokenizer_from_directory
from salver.models.tokenizer import Tokenizer

T = TypeVar("T", bound=Detokenizer)


def open_tokenizer(checkpoint: Checkpoint, path: Path) -> Tokenizer:
    """Read the tokenizer of a checkpoint that was opened from `path`.

    Raises:
        MalformedModel: it is damaged, hostile, or does not go with the weights.
        UnsupportedModel: its kind is not known here.
    """
    return _opened(checkpoint, path, tokenizer_from_gguf, tokenizer_from_directory)


def open_detokenizer(checkpoint: Checkpoint, path: Path) -> Detokenizer:
    """Read of that tokenizer what tells ids apart, for those who meet no text.

    Raises:
        MalformedModel: it is damaged, hostile, or does not go with the weights.
        UnsupportedModel: its kind is not known here.
    """
    return _opened(checkpoint, path, detokenizer_from_gguf, detokenizer_from_directory)


def _opened(
    checkpoint: Checkpoint,
    path: Path,
    from_gguf: Callable[[Mapping[str, object], str], T],
    from_directory: Callable[[Path, int], T],
) -> T:
    if isinstance(checkpoint, GgufCheckpoint):
        tokenizer = from_gguf(checkpoint.metadata, path.name)
    else:
        directory = path if path.is_dir() else path.parent
        tokenizer = from_directory(directory, checkpoint.config.vocab_size)
    _check_size(tokenizer, checkpoint, path)
    return tokenizer


def _check_size(tokenizer: Detokenizer, checkpoint: Checkpoint, path: Path) -> None:
    if tokenizer.vocab_size != checkpoint.config.vocab_size:
        raise MalformedModel(
            f"{path.name}: the tokenizer has {tokenizer.vocab_size} tokens, the model embeds"
            f" {checkpoint.config.vocab_size}",
            rule="tokenizer.vocab_size",
            value=tokenizer.vocab_size,
            limit=checkpoint.config.vocab_size,
            fix="the file is damaged or badly converted: fetch it again and check its digest",
        )
