"""Everything that a model file holds, opened together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from salver.errors import MalformedModel
from salver.models.chat_template import MAX_SOURCE, ChatTemplate
from salver.models.checkpoint import Checkpoint
from salver.models.config import ModelConfig
from salver.models.fields import Fields
from salver.models.gguf_checkpoint import GgufCheckpoint
from salver.models.hf_tokenizer import read_settings, special_text
from salver.models.opening import open_checkpoint
from salver.models.tokenizer import Tokenizer
from salver.models.tokenizing import open_tokenizer

_TEMPLATE_KEY: Final = "tokenizer.chat_template"
_TEMPLATE_FILE: Final = "chat_template.jinja"


@dataclass(frozen=True, slots=True)
class Model:
    """An opened model. `chat_template` is None where the file has none: then there is no chat."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    chat_template: ChatTemplate | None

    @property
    def config(self) -> ModelConfig:
        return self.checkpoint.config


def open_model(path: Path) -> Model:
    """Open a GGUF file or a Hugging Face directory; no weight is read.

    Raises:
        MalformedModel: a part is damaged, hostile, or does not go with the others.
        UnsupportedModel: a part is not known here.
    """
    return complete_model(open_checkpoint(path), path)


def complete_model(checkpoint: Checkpoint, path: Path) -> Model:
    """Add what else a model's file holds to a checkpoint that was opened from `path`.

    Raises:
        MalformedModel: a part is damaged, hostile, or does not go with the others.
        UnsupportedModel: a part is not known here.
    """
    tokenizer = open_tokenizer(checkpoint, path)
    if isinstance(checkpoint, GgufCheckpoint):
        template = _gguf_template(checkpoint.metadata, tokenizer, path.name)
    else:
        template = _directory_template(path if path.is_dir() else path.parent)
    return Model(checkpoint, tokenizer, template)


def _gguf_template(
    metadata: Mapping[str, object], tokenizer: Tokenizer, where: str
) -> ChatTemplate | None:
    fields = Fields(metadata, where)
    if _TEMPLATE_KEY not in fields:
        return None
    bos, eos = (_spelling(fields, tokenizer, name) for name in ("bos", "eos"))
    return ChatTemplate(fields.text(_TEMPLATE_KEY), bos_token=bos, eos_token=eos)


def _spelling(fields: Fields, tokenizer: Tokenizer, name: str) -> str:
    key = f"tokenizer.ggml.{name}_token_id"
    if key not in fields:
        return ""
    return tokenizer.token_bytes(fields.integer(key, low=0)).decode(errors="replace")


def _directory_template(directory: Path) -> ChatTemplate | None:
    settings = read_settings(directory, "tokenizer_config.json")
    file = directory / _TEMPLATE_FILE
    source = _read_source(file) if file.is_file() else _listed_source(settings)
    if source is None:
        return None
    bos, eos = (special_text(settings, f"{name}_token") or "" for name in ("bos", "eos"))
    return ChatTemplate(source, bos_token=bos, eos_token=eos)


def _read_source(file: Path) -> str:
    with file.open("rb") as opened:
        raw = opened.read(4 * MAX_SOURCE + 1)  # a character has at most four bytes
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedModel(
            f"{file.name} is not UTF-8: {error.reason}",
            rule="chat_template",
            fix="fetch the file again and check its digest",
        ) from None


def _listed_source(settings: Fields) -> str | None:
    """A string, or named templates of which `default` is the one for conversations."""
    listed = settings.get("chat_template")
    if not isinstance(listed, list):
        return settings.text("chat_template") if "chat_template" in settings else None
    for entry in listed:
        if isinstance(entry, Mapping) and entry.get("name") == "default":
            return Fields(entry, settings.where).text("template")
    return None
