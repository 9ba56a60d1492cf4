"""Real vocabularies against outside references; `goldens/make_tokenizer_goldens.py` made the files."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from salver.models import Model, open_model, render_chat, tokenizer_from_gguf

GOLDENS = Path(__file__).parent / "goldens"


def load(name: str) -> Any:
    return json.loads((GOLDENS / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path) -> Model:
    return open_model(smollm2_path)


@pytest.fixture(scope="module")
def qwen() -> Model:
    path = os.environ.get("SALVER_TEST_QWEN_GGUF")
    if not path:
        pytest.skip("SALVER_TEST_QWEN_GGUF names no file")
    return open_model(Path(path))


@pytest.mark.model
def test_smollm2_encodes_as_transformers_does(smollm2: Model) -> None:
    check_texts(smollm2, "tokenizer_smollm2")
    assert smollm2.tokenizer.eos_token_ids == {0, 2}
    assert smollm2.tokenizer.encode("hi", add_special_tokens=True, parse_special=False) == [6004]


@pytest.mark.model
def test_smollm2_chats_as_transformers_does(smollm2: Model) -> None:
    check_chats(smollm2, "tokenizer_smollm2")


@pytest.mark.large
def test_qwen_encodes_as_transformers_does(qwen: Model) -> None:
    check_texts(qwen, "tokenizer_qwen25")
    assert qwen.tokenizer.eos_token_ids == {151643, 151645}


@pytest.mark.large
def test_qwen_chats_as_transformers_does(qwen: Model) -> None:
    check_chats(qwen, "tokenizer_qwen25")


def check_texts(model: Model, name: str) -> None:
    tokenizer = model.tokenizer
    for golden in load(name)["texts"]:
        text, ids = golden["text"], golden["ids"]
        assert tokenizer.encode(text, add_special_tokens=False, parse_special=True) == ids, text
        plain = tokenizer.encode(text, add_special_tokens=False, parse_special=False)
        assert plain == golden.get("plain", ids), text
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert len(ids) >= -(-len(text.encode()) // tokenizer.max_token_bytes)


def check_chats(model: Model, name: str) -> None:
    template, tokenizer = model.chat_template, model.tokenizer
    assert template is not None
    for golden in load(name)["chats"]:
        assert template.render(**golden["given"]) == golden["text"]
        chat = render_chat(template, tokenizer, **golden["given"])
        assert (chat.text, chat.breaks) == (golden["text"], ())


def test_a_trained_vocabulary_encodes_as_sentencepiece_does() -> None:
    golden = load("sentencepiece")
    tokenizer = tokenizer_from_gguf(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": golden["tokens"],
            "tokenizer.ggml.scores": golden["scores"],
            "tokenizer.ggml.token_type": golden["token_type"],
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
        }
    )
    for text in golden["texts"]:
        ids = tokenizer.encode(text["text"], add_special_tokens=False, parse_special=False)
        assert ids == text["ids"], text["text"]
        assert tokenizer.decode(ids, starts_text=True) == text["text"]
