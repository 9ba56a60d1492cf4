"""A model opened as one: the tokenizer fits the weights, the template comes from the same file."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import save_file
from tokenizers import decoders, models, pre_tokenizers

from salver.errors import MalformedModel, UnsupportedModel
from salver.models import open_model
from salver.models.bpe import split_merges
from salver.testing.tiny_vocabulary import tiny_bpe_metadata

Write = Callable[[Mapping[str, Any], Mapping[str, Any]], Path]
TOKENIZER: dict[str, Any] = tiny_bpe_metadata()
SIZE = len(TOKENIZER["tokenizer.ggml.tokens"])
USER = {"role": "user", "content": "hi"}
SOURCE = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"


@pytest.fixture
def gguf(write_gguf: Write, tiny_metadata: Any, tiny_tensors: Any) -> Callable[..., Path]:
    """Write the tiny Llama with our vocabulary; keyword arguments change metadata."""

    def write(**changes: object) -> Path:
        tiny_metadata.pop("tokenizer.ggml.scores", None)
        kind, _, _ = tiny_tensors["token_embd.weight"]
        tiny_tensors["token_embd.weight"] = (kind, (SIZE, 16), bytes(SIZE * 16 * 4))
        named = {key.replace("__", "."): value for key, value in changes.items()}
        return write_gguf({**tiny_metadata, **TOKENIZER, **named}, tiny_tensors)

    return write


@pytest.fixture
def directory(tmp_path: Path, tiny_json: dict[str, object], hf_arrays: Any) -> Path:
    """The tiny Llama with our vocabulary as a Hugging Face directory, embedding 3 rows more."""
    pieces = TOKENIZER["tokenizer.ggml.tokens"]
    merges = list(split_merges(TOKENIZER["tokenizer.ggml.merges"]))
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    (tmp_path / "config.json").write_text(json.dumps(tiny_json | {"vocab_size": SIZE + 3}))
    embedding = np.zeros((SIZE + 3, 16), np.float32)
    save_file({**hf_arrays, "model.embed_tokens.weight": embedding}, tmp_path / "model.safetensors")
    settings(tmp_path)
    return tmp_path


def settings(directory: Path, **more: object) -> None:
    tokens = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokens | more))


def test_a_gguf_file_is_one_model(gguf: Callable[..., Path]) -> None:
    model = open_model(gguf(tokenizer__chat_template=SOURCE))
    assert model.tokenizer.vocab_size == model.config.vocab_size == SIZE
    assert model.chat_template is not None
    assert model.chat_template.render([USER]) == "<|im_start|>hi<|im_end|>"


def test_without_a_template_there_is_none(gguf: Callable[..., Path]) -> None:
    assert open_model(gguf()).chat_template is None


def test_a_template_that_cannot_be_trusted_spoils_the_model(gguf: Callable[..., Path]) -> None:
    with pytest.raises(MalformedModel, match="chat template"):
        open_model(gguf(tokenizer__chat_template="{{"))
    with pytest.raises(UnsupportedModel, match="uses Include"):
        open_model(gguf(tokenizer__chat_template="{% include 'x' %}"))
    with pytest.raises(MalformedModel, match="a string"):
        open_model(gguf(tokenizer__chat_template=3))


def test_a_directory_is_one_model(directory: Path) -> None:
    model = open_model(directory)
    assert model.tokenizer.vocab_size == model.config.vocab_size == SIZE + 3
    assert model.chat_template is None


@pytest.mark.parametrize(
    "listed",
    [SOURCE, [{"name": "tool_use", "template": "{{"}, {"name": "default", "template": SOURCE}]],
)
def test_templates_in_the_settings(directory: Path, listed: object) -> None:
    settings(directory, chat_template=listed)
    template = open_model(directory).chat_template
    assert template is not None
    assert template.render([USER]) == "<|im_start|>hi<|im_end|>"


def test_a_template_file_goes_before_the_settings(directory: Path) -> None:
    settings(directory, chat_template="{{")
    (directory / "chat_template.jinja").write_text("from the file")
    template = open_model(directory).chat_template
    assert template is not None
    assert template.render([USER]) == "from the file"
    (directory / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(MalformedModel, match="not UTF-8"):
        open_model(directory)


def test_a_vocabulary_larger_than_the_embedding_is_refused(directory: Path) -> None:
    document = json.loads((directory / "tokenizer.json").read_text())
    document["model"]["vocab"]["one too many"] = SIZE + 3
    (directory / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(MalformedModel, match=f"holds id {SIZE + 3}; the model embeds {SIZE + 3}"):
        open_model(directory)
