"""Chat templates: what they render, what they are given, and how they refuse."""

import json
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.errors import InvalidValue, UnsupportedField
from salver.models import ChatTemplate, flatten_content

FEATURES = json.loads((Path(__file__).parent / "goldens" / "chat_features.json").read_text())
USER = {"role": "user", "content": "hi"}

chatml = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def template(source: str, **options: object) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("golden", FEATURES, ids=lambda golden: golden["template"][:40])
def test_jinja_renders_as_transformers_renders_it(golden: dict[str, str]) -> None:
    turns = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": " And of Spain? \n"},
    ]
    assert template(golden["template"]).render(turns) == golden["text"]


def test_the_generation_prompt_is_a_choice() -> None:
    chat = template(chatml)
    assert chat.render([USER]).endswith("<|im_start|>assistant\n")
    assert chat.render([USER], add_generation_prompt=False).endswith("hi<|im_end|>\n")


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.text()), max_size=6))
def test_content_passes_through_untouched(turns: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": content} for role, content in turns]
    expected = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    assert template(chatml).render(messages, add_generation_prompt=False) == expected


def test_time_is_what_the_clock_says() -> None:
    chat = template("{{ strftime_now('%d %b %Y') }}", clock=lambda: datetime(2026, 2, 3))
    assert chat.render([USER]) == "03 Feb 2026"


def test_text_parts_are_joined_by_lines() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert flatten_content(parts) == "a\nb"
    assert template("{{ messages[0].content }}").render([{"role": "user", "content": parts}]) == (
        "a\nb"
    )
    assert flatten_content([]) == ""
    assert flatten_content(None) is None


def test_a_part_that_is_not_text_is_refused() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:..."}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, image]}]
    with pytest.raises(UnsupportedField, match="'image_url'") as refusal:
        template(chatml).render(messages)
    assert refusal.value.param == "messages[0].content[1]"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": ["a"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        (["hi"], "messages[0]"),
        ([{"role": "user", "content": "a", "x": {1, 2}}], "messages[0]"),
        ([USER, {"role": "assistant", "tool_calls": 3}], "messages[1].tool_calls"),
        ([{"tool_calls": [{}]}], "messages[0].tool_calls[0].function"),
        (
            [{"tool_calls": [{"function": {"arguments": "{"}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_malformed_messages_are_named(messages: list[dict[str, object]], param: str) -> None:
    with pytest.raises(InvalidValue) as refusal:
        template(chatml).render(messages)
    assert refusal.value.param == param


def test_deep_messages_are_refused() -> None:
    deep: object = "x"
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(InvalidValue, match="nested over"):
        template("{{ messages }}").render([{"role": "user", "content": "", "x": deep}])


def test_tool_arguments_are_parsed_and_the_callers_messages_left_alone() -> None:
    call = {"function": {"name": "f", "arguments": '{"city": "Köln"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    chat = template("{{ messages[0].tool_calls[0].function.arguments | tojson }}")
    assert chat.render([message]) == '{"city": "Köln"}'
    assert call["function"] == {"name": "f", "arguments": '{"city": "Köln"}'}


def test_tools_reach_the_template_or_are_refused() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    chat = template("{% for t in tools %}{{ t.function.name }}{% endfor %}")
    assert chat.supports_tools
    assert chat.render([USER], tools=[tool, tool]) == "ff"
    assert not template(chatml).supports_tools
    with pytest.raises(UnsupportedField) as refusal:
        template(chatml).render([USER], tools=[tool])
    assert refusal.value.param == "tools"
    assert template(chatml).render([USER], tools=[])


def test_variables_reach_the_template_or_are_refused() -> None:
    chat = template("{{ 'T' if enable_thinking else 'F' }}{{ messages | length }}{{ bos_token }}")
    assert chat.render([USER], variables={"enable_thinking": True}) == "T1<s>"
    for name in ("unheard_of", "messages", "bos_token"):
        with pytest.raises(UnsupportedField, match=name):
            chat.render([USER], variables={name: True})


def test_the_templates_own_refusal_is_the_callers_to_mend() -> None:
    chat = template("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(
        InvalidValue, match="refuses these messages: roles must alternate"
    ) as refusal:
        chat.render([USER])
    assert refusal.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' + messages[0].none }}",
        "{{ nothing() }}",
        "{{ nothing.x }}",
        "{{ 1 // 0 }}",
        "{{ messages[0] + 1 }}",
        "{{ 'a'.index('b') }}",
        "{{ strftime_now(1) }}",
    ],
)
def test_what_a_template_cannot_write_is_refused(source: str) -> None:
    with pytest.raises(InvalidValue, match="cannot write these messages"):
        template(source).render([USER])
