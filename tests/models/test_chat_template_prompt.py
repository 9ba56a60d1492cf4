"""Only the template may write control tokens; whoever writes a message may only spell them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.errors import InvalidValue
from salver.models import ChatTemplate, Tokenizer, render_chat, tokenizer_from_gguf
from salver.testing.tiny_vocabulary import tiny_bpe_metadata

TOKENIZER = tokenizer_from_gguf(tiny_bpe_metadata())
START, END = (TOKENIZER.control_tokens[text] for text in ("<|im_start|>", "<|im_end|>"))
CHATML = ChatTemplate(
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}"
    "{% endfor %}",
    bos_token="",
    eos_token="",
)

contents = st.lists(
    st.sampled_from(["<|im_end|>", "<|im_start|>", "<|im_", "end|>", "\n", " ", "the", "<", "|"])
    | st.sampled_from(["\ufdd0", "\ufdd1"])
    | st.text(max_size=2)
).map("".join)


def encoded(
    messages: list[dict[str, object]],
    template: ChatTemplate = CHATML,
    tokenizer: Tokenizer = TOKENIZER,
    tools: list[dict[str, object]] | None = None,
) -> list[int]:
    chat = render_chat(template, tokenizer, messages, tools=tools)
    return tokenizer.encode(
        chat.text, add_special_tokens=False, parse_special=True, breaks=chat.breaks
    )


@given(st.lists(contents, min_size=1, max_size=4))
def test_each_message_has_exactly_the_templates_control_tokens(turns: list[str]) -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": text} for text in turns]
    ids = encoded(messages)
    assert [token for token in ids if token in (START, END)] == [START, END] * len(turns)
    # What the model reads is what the template wrote, to the character.
    assert TOKENIZER.decode(ids, skip_special_tokens=False) == CHATML.render(messages)


def test_without_control_tokens_nothing_is_marked() -> None:
    chat = render_chat(CHATML, TOKENIZER, [{"role": "user", "content": "<|im_end"}])
    assert chat.breaks == ()


def test_plain_text_around_a_spelled_control_token_encodes_as_one_text() -> None:
    """Nothing is cut at the breaks: the words come out as if no one had looked."""
    content = "the<|im_end|>the"
    ids = encoded([{"role": "the", "content": content}])
    body = f"the\n{content}"
    plain = TOKENIZER.encode(body, add_special_tokens=False, parse_special=False)
    assert ids[: len(plain) + 2] == [START, *plain, END]


def test_tools_roles_and_keys_are_guarded_too() -> None:
    tools: list[dict[str, object]] = [{"<|im_end|>": {"d": ["<|im_start|>"]}}]
    ids = encoded([{"role": "<|im_end|>", "content": "the"}], tools=tools)
    assert [token for token in ids if token in (START, END)] == [START, END]
    assert json.dumps(tools) in TOKENIZER.decode(ids, skip_special_tokens=False)


def test_a_token_may_not_reach_from_the_template_into_the_message() -> None:
    """With tokens `xa`, `ab` and `bx`, neither side's `x` may take a letter of the message's `ab`."""
    tokenizer = tokenizer_from_gguf(tiny_bpe_metadata(control=["xa", "ab", "bx"]))
    template = ChatTemplate("x{{ messages[0].content }}x", bos_token="", eos_token="")
    control = set(tokenizer.control_tokens.values())
    assert not control & set(encoded([{"content": "ab"}], template, tokenizer))


def test_a_template_may_cut_marked_content() -> None:
    template = ChatTemplate(
        "{% for part in messages[0].content.split('|') %}[{{ part }}]{% endfor %}<|im_end|>",
        bos_token="",
        eos_token="",
    )
    ids = encoded([{"content": "<|im_end|><|im_end|>"}], template)
    assert [token for token in ids if token in (START, END)] == [END]


def test_a_mark_is_a_character_that_nobody_wrote() -> None:
    noncharacters = "".join(map(chr, range(0xFDD0, 0xFDF0)))
    kept = f"{noncharacters[:-1]}<|im_end|>"
    chat = render_chat(CHATML, TOKENIZER, [{"role": "user", "content": kept}])
    assert kept in chat.text
    with pytest.raises(InvalidValue, match="every Unicode noncharacter"):
        render_chat(CHATML, TOKENIZER, [{"content": f"{noncharacters}<|im_end|>"}])
