"""Checkpoints, tokenizers and chat templates."""

from typing import TYPE_CHECKING

from salver.lazy import lazily
from salver.models.checkpoint import Checkpoint
from salver.models.config import ModelConfig, RopeConfig, RopeScaling
from salver.models.detokenizer import TokenDecoder
from salver.models.groups import GROUP_KINDS, FourBitGroups, GroupKind
from salver.models.names import expected_tensors
from salver.models.opening import open_checkpoint
from salver.models.tokenizer import Tokenizer

if TYPE_CHECKING:
    from salver.models.chat_messages import flatten_content
    from salver.models.chat_prompt import ChatText, render_chat
    from salver.models.chat_template import ChatTemplate
    from salver.models.gguf_tokenizer import tokenizer_from_gguf
    from salver.models.hf_tokenizer import tokenizer_from_directory
    from salver.models.model import Model, complete_model, open_model
    from salver.models.tokenizing import open_detokenizer, open_tokenizer

_LATER = {
    "open_detokenizer": "tokenizing",
    "open_tokenizer": "tokenizing",
    "flatten_content": "chat_messages",
    "ChatText": "chat_prompt",
    "render_chat": "chat_prompt",
    "ChatTemplate": "chat_template",
    "tokenizer_from_gguf": "gguf_tokenizer",
    "tokenizer_from_directory": "hf_tokenizer",
    "Model": "model",
    "complete_model": "model",
    "open_model": "model",
}
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _LATER)

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
    "complete_model",
    "expected_tensors",
    "flatten_content",
    "open_checkpoint",
    "open_detokenizer",
    "open_model",
    "open_tokenizer",
    "render_chat",
    "tokenizer_from_directory",
    "tokenizer_from_gguf",
]
