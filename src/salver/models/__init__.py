"""Checkpoints, tokenizers and chat templates."""

from salver.models.chat_messages import flatten_content
from salver.models.chat_prompt import ChatText, render_chat
from salver.models.chat_template import ChatTemplate
from salver.models.checkpoint import Checkpoint
from salver.models.config import ModelConfig, RopeConfig, RopeScaling
from salver.models.detokenizer import TokenDecoder
from salver.models.gguf_tokenizer import tokenizer_from_gguf
from salver.models.groups import GROUP_KINDS, FourBitGroups, GroupKind
from salver.models.hf_tokenizer import tokenizer_from_directory
from salver.models.model import Model, open_model
from salver.models.names import expected_tensors
from salver.models.opening import open_checkpoint
from salver.models.tokenizer import Tokenizer

__all__ = [
    "GROUP_KINDS",
    "ChatTemplate",
    "ChatText",
    "Checkpoint",
    "FourBitGroups",
    "GroupKind",
    "Model",
    "ModelConfig",
    "RopeConfig",
    "RopeScaling",
    "TokenDecoder",
    "Tokenizer",
    "expected_tensors",
    "flatten_content",
    "open_checkpoint",
    "open_model",
    "render_chat",
    "tokenizer_from_directory",
    "tokenizer_from_gguf",
]
