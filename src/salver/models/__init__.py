"""Checkpoints, tokenizers and chat templates."""

from salver.models.checkpoint import Checkpoint
from salver.models.config import ModelConfig, RopeConfig, RopeScaling
from salver.models.detokenizer import TokenDecoder
from salver.models.gguf_tokenizer import tokenizer_from_gguf
from salver.models.hf_tokenizer import tokenizer_from_directory
from salver.models.names import expected_tensors
from salver.models.opening import open_checkpoint
from salver.models.tokenizer import Tokenizer

__all__ = [
    "Checkpoint",
    "ModelConfig",
    "RopeConfig",
    "RopeScaling",
    "TokenDecoder",
    "Tokenizer",
    "expected_tensors",
    "open_checkpoint",
    "tokenizer_from_directory",
    "tokenizer_from_gguf",
]
