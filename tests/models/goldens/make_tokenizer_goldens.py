"""Write the tokenizer and chat goldens from outside references.

    python make_tokenizer_goldens.py SMOLLM2.gguf QWEN2.5-CODER.gguf SPEC_BENCH.jsonl

needs `transformers` (5.23 made the stored files), `gguf` and `sentencepiece`. The tests read the
JSON files beside this script and need none of them.

`transformers` reads both GGUF files but loses SmolLM2's single-digit splitting, which the published
tokenizer.json has (and llama.cpp's `smollm` too); it is put back here before encoding.
"""

import io
import json
import sys
from pathlib import Path
from typing import Any

import sentencepiece  # type: ignore[import-not-found, unused-ignore]
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer  # type: ignore[import-not-found, unused-ignore]
from transformers.utils.chat_template_utils import (  # type: ignore[import-not-found, unused-ignore]
    _compile_jinja_template,
)

HERE = Path(__file__).parent

TEXTS = [
    "",
    " ",
    "a",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "  two leading spaces",
    "trailing spaces   ",
    "inner     run of spaces",
    "tab\tand\t\ttabs",
    "line\nbreak\n\n\nbreaks",
    "\r\nwindows\r\nlines\r",
    " \n \n  mixed \t \n",
    "   123 spaces before digits",
    "1234567890",
    "3.14159, -2e10 and 1,000,000",
    "v1.2.3-rc.4",
    "2026-11-21T22:30:35Z",
    "½ ² Ⅷ ٣ ४ 五",
    "don't I'll we've they're he'd I'm it's",
    "DON'T I'LL WE'VE",
    "snake_case camelCase PascalCase kebab-case SCREAMING_CASE",
    "def f(x: int) -> int:\n    return x ** 2  # square\n",
    "if (a != b && c <= d || !e) { return a[i++] %= ~b; }",
    '{"key": [1, 2.5, null, true], "nested": {"a": "b"}}',
    "<div class=\"x\">&amp;</div><!-- c -->",
    "SELECT * FROM t WHERE a = 'b''c';",
    "https://example.com/a/b?c=d&e=f#g",
    "user.name+tag@example.co.uk",
    "C:\\Users\\me\\file.txt",
    "$100 €50 £20 ¥1000 ₹5",
    "a+b=c; a<b>c; ^~|`",
    "!!!???...---___***",
    "«quotes» “curly” ‘single’ … – —",
    "naïve café résumé Ångström",
    "e\u0301 combining, a\u030a too",
    "Straße GRÜSSE ẞ",
    "Ελληνικά Русский Українська",
    "עברית العربية فارسی",
    "हिन्दी தமிழ் ไทย",
    "日本語のテキスト、漢字とかな。",
    "中文文本，没有空格。",
    "한국어 텍스트",
    "Tiếng Việt có dấu",
    "😀😃😄 emoji run",
    "👩\u200d👩\u200d👧\u200d👦 family 👍🏽 skin 🇩🇪 flag",
    "❤\ufe0f ☺ ✓ ★ ♫ →",
    "𝕳𝖊𝖑𝖑𝖔 𝔸𝔹ℂ",
    "zero\u200bwidth \u00a0nbsp \u2003em \u3000wide",
    "\ufeffbom",
    "control \x01\x02\x7f chars",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "================================================================",
    "                                                                x",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "<|im_start|>user\nhi<|im_end|>\n",
    "text<|endoftext|>more text",
    "almost <|im_end and |im_end|> and < |im_end|>",
    "<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
    "<|im_end|><|im_end|> <|im_start|>",
]  # fmt: skip

SYSTEM = {"role": "system", "content": "Answer in one word."}
TURNS = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": " And of Spain? \n"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in a city, in °C.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CALLS = [
    {"role": "user", "content": "Weather in Köln?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "1",
                "type": "function",
                "function": {"name": "get_weather", "arguments": {"city": "Köln", "days": 2}},
            },
            {
                "id": "2",
                "type": "function",
                "function": {"name": "get_weather", "arguments": {"city": "Bonn"}},
            },
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": '{"t": 3}'},
    {"role": "tool", "tool_call_id": "2", "content": '{"t": 4}'},
    {"role": "assistant", "content": "3 and 4."},
    {"role": "user", "content": "Thanks."},
]
CHATS: list[dict[str, Any]] = [
    {"messages": TURNS[:1]},
    {"messages": TURNS},
    {"messages": [SYSTEM, *TURNS]},
    {"messages": [SYSTEM, *TURNS], "add_generation_prompt": False},
    {"messages": TURNS[:2], "add_generation_prompt": False},
    {"messages": [{"role": "user", "content": ""}]},
    {"messages": [{"role": "user", "content": "{{ 1 + 1 }} {% raw %} <b>&</b>"}]},
]
TOOL_CHATS: list[dict[str, Any]] = [
    {"messages": TURNS[:1], "tools": [TOOL]},
    {"messages": [SYSTEM, *TURNS], "tools": [TOOL, TOOL]},
    {"messages": CALLS, "tools": [TOOL]},
    {"messages": [SYSTEM, *CALLS[:4]], "tools": [TOOL]},
]

# One line of Jinja for each thing that templates in the wild rely on; all see the same messages.
FEATURES = [
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] | trim }}{{ eos_token }}{% endfor %}",
    "{% for m in messages %}{% if loop.first %}F{% endif %}{{ loop.index0 }}/{{ loop.length }}{% if not loop.last %},{% endif %}{% endfor %}",
    "{% set ns = namespace(n=0, s='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.s = ns.s ~ m.role[0] %}{% endfor %}{{ ns.n }} {{ ns.s }}",
    "{% for m in messages[1:] %}{{ m.role }} {% endfor %}|{% for m in messages[::-1] %}{{ m.role }} {% endfor %}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% continue %}{% endif %}{{ m.role }}{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}",
    "{{ messages | tojson }}",
    "{{ messages | tojson(indent=2) }}",
    "{{ {'b': 1, 'a': [1.5, none, true, 'é<>&']} | tojson(sort_keys=true, separators=(',', ':')) }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'in', ['user']) | map(attribute='role') | join('+') }}",
    "{% macro turn(m, end='.') %}<{{ m.role }}>{{ caller() if caller is defined }}{{ end }}{% endmacro %}{{ turn(messages[0]) }}{{ turn(messages[0], end='!') }}{% call turn(messages[1]) %}in{% endcall %}",
    "{%- if tools is not none %}T{% else %}no tools{% endif -%}\n  {%- if documents is defined and documents %}D{% endif %}",
    "{% set x %}block {{ messages | length }}{% endset %}{{ x | upper }}",
    "{{ messages[0].content.split(' ')[-1] }} {{ 'a-b'.replace('-', '+') }} {{ ' x '.strip() }} {{ 'ab'.startswith('a') }} {{ ', '.join(['a', 'b']) }}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}{{ messages[0].get('none', 'dflt') }}{{ messages[0].missing | default('d2') }}",
    "{{ 'yes' if messages[0].tool_calls is defined else 'no' }} {{ messages is iterable }} {{ messages[0] is mapping }} {{ 'x' is string }} {{ messages[0].zip is not defined }}",
    "{{ 7 // 2 }} {{ 7 % 2 }} {{ 2 ** 3 }} {{ 7 / 2 }} {{ -1 }} {{ 'ab' * 2 }} {{ [1] + [2] }} {{ (messages | length) % 2 == 0 }}",
    "{% for i in range(3) %}{{ i }}{% endfor %} {{ range(2, 8, 3) | list }} {{ [3, 1, 2] | sort | first }} {{ [3, 1, 2] | max }}",
    "{{ 'a\nb\n\nc' | indent(2) }}|{{ 'a\nb' | indent(2, true) }}|{{ 'a\n\nb' | indent('>', false, true) }}",
    "{{ undefined_thing }}{{ none }}{{ true }}{{ 1.0 }}{{ [1, 'a', none] }}{{ {'a': 1} }}",
    "a\n{% if true %}\n  b\n{% endif %}\n  {% if true %}c{% endif %}\n{# note #}d\n",
    "{% generation %}{{ messages[1].content }}{% endgeneration %}",
    "{{ 'Title Case me' | title }} {{ 'cap' | capitalize }} {{ ' t ' | trim }} {{ '3' | int + 1 }} {{ 3 | string + 'x' }} {{ 'abc' | reverse }} {{ 'abc' | list }}",
    "{% if 'France' in messages[0].content and not ('x' in ['y']) %}found{% endif %} {{ 1 < 2 <= 2 }} {{ messages[0].role != 'system' }}",
    "{{ dict(a=1, b='c') }} {{ {'x': 1} | dictsort }} {{ ['b', 'a', 'b'] | unique | join(',') }} {{ [1, 2, 3] | last }}",
]


def main() -> None:
    smollm2, qwen, spec_bench = map(Path, sys.argv[1:])
    prompts = [
        turn
        for line in spec_bench.read_text().splitlines()[::60]
        for turn in json.loads(line)["turns"][:1]
    ][:8]
    texts = TEXTS + [prompt[:600] for prompt in prompts]
    tokenizer = AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    write("tokenizer_smollm2", goldens(tokenizer, texts, CHATS))
    tokenizer = AutoTokenizer.from_pretrained(qwen.parent, gguf_file=qwen.name)
    write("tokenizer_qwen25", goldens(tokenizer, texts, CHATS + TOOL_CHATS))
    write("chat_features", features())
    write("sentencepiece", sentencepiece_goldens(texts))


def goldens(tokenizer: Any, texts: list[str], chats: list[dict[str, Any]]) -> dict[str, Any]:
    backend = tokenizer.backend_tokenizer
    parsed = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    backend.encode_special_tokens = True
    plain = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    return {
        "texts": [
            {"text": text, "ids": ids, **({"plain": other} if other != ids else {})}
            for text, ids, other in zip(texts, parsed, plain, strict=True)
        ],
        "chats": [{"given": chat, "text": rendered(tokenizer, **chat)} for chat in chats],
    }


def rendered(tokenizer: Any, messages: Any, **options: Any) -> str:
    options = {"add_generation_prompt": True, **options}
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    assert isinstance(text, str)
    return text


def features() -> list[dict[str, str]]:
    given = {
        "messages": TURNS, "tools": None, "documents": None, "add_generation_prompt": True,
        "bos_token": "<s>", "eos_token": "</s>",
    }  # fmt: skip
    return [
        {"template": source, "text": _compile_jinja_template(source).render(**given)}
        for source in FEATURES
    ]


def sentencepiece_goldens(texts: list[str]) -> dict[str, Any]:
    """A tiny vocabulary trained here, as GGUF metadata would hold it, and what it makes of texts."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for text in texts if text.strip()]),
        model_writer=trained,
        model_type="bpe",
        vocab_size=700,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        character_coverage=0.98,
        hard_vocab_limit=False,
    )
    model = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    ids = range(model.get_piece_size())
    return {
        "tokens": [model.id_to_piece(index) for index in ids],
        "scores": [model.get_score(index) for index in ids],
        "token_type": [kind(model, index) for index in ids],
        "texts": [{"text": text, "ids": model.encode(text)} for text in texts],
    }


def kind(model: Any, index: int) -> int:
    if model.is_unknown(index):
        return 2
    if model.is_control(index):
        return 3
    return 6 if model.is_byte(index) else 1


def write(name: str, value: object) -> None:
    text = json.dumps(value, ensure_ascii=True, indent=None, separators=(",", ":"))
    (HERE / f"{name}.json").write_text(text.replace('},{"', '},\n{"') + "\n")


if __name__ == "__main__":
    main()
