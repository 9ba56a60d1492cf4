"""Greedy continuations by `transformers`, the outside reference that Salver's runner is held against.

    python make_goldens.py MODEL.gguf spec_bench.jsonl OUT.json [--count 20] [--tokens 32]

Needs torch (CPU), transformers, gguf and accelerate in a virtual environment of its own; the
goldens in this folder were made with torch 2.13, transformers 5.23 and gguf 0.19:

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    pip install transformers gguf accelerate

The prompts are Spec-Bench's (github.com/hemingkx/Spec-Bench, question.jsonl): first turns, rendered
with the model's own chat template, at most 200 tokens long, taken from each category in turn. The
model is `transformers`' own reading of the GGUF file: its dequantization to float32, its name
mapping, its q/k permutation, its tokenizer. Before it generates, the script holds every tensor
against what the `gguf` package dequantizes and stops where they differ.

For each step the golden keeps the gap between the two largest logits, so that a test can tell a
wrong token from a tie that float32 rounding broke the other way.
"""

import argparse
import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]
import transformers  # type: ignore[import-not-found, unused-ignore]

MAX_PROMPT_TOKENS = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=32)
    arguments = parser.parse_args()
    folder, file = arguments.model.parent, arguments.model.name
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    check_weights(arguments.model, model)
    cases = [
        continue_greedily(model, case, arguments.tokens)
        for case in choose_prompts(arguments.prompts, tokenizer, arguments.count)
    ]
    golden = {
        "model": file,
        "sha256": hashlib.sha256(arguments.model.read_bytes()).hexdigest(),
        "made_with": {m.__name__: m.__version__ for m in (torch, transformers)},
        "cases": cases,
    }
    arguments.out.write_text(compact(golden))


def check_weights(path: Path, model: Any) -> None:
    """Every tensor of the model equals the gguf package's dequantization of it, q and k permuted."""
    state = model.state_dict()
    config = model.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type)
        part = tensor.name.split(".")[-2]
        if config.model_type == "llama" and part in heads:
            values = to_rotate_half(values, heads[part])
        name = hugging_face_name(tensor.name)
        if not np.array_equal(state[name].numpy(), values.astype(np.float32)):
            raise SystemExit(f"{name} differs from {tensor.name}")


def to_rotate_half(rows: Any, heads: int) -> Any:
    """Rows of llama.cpp's interleaved order: pairs (2i, 2i + 1) of a head become (i, i + half)."""
    return rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def hugging_face_name(name: str) -> str:
    outer = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    inner = {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    *prefix, part, kind = name.split(".")
    if not prefix:
        return f"{outer[part]}.{kind}"
    return f"model.layers.{prefix[1]}.{inner[part]}.{kind}"


def choose_prompts(path: Path, tokenizer: Any, count: int) -> list[dict[str, Any]]:
    """The first `count` that are short enough, from each category in turn."""
    by_category: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in path.read_text().splitlines():
        question = json.loads(line)
        ids = render(tokenizer, question["turns"][0])
        if len(ids) <= MAX_PROMPT_TOKENS:
            case = {"question_id": question["question_id"], "prompt": ids}
            by_category[question["category"]].append(case)
    in_turn = itertools.zip_longest(*by_category.values())
    chosen = (case for round_ in in_turn for case in round_ if case is not None)
    return list(itertools.islice(chosen, count))


def render(tokenizer: Any, text: str) -> list[int]:
    messages = [{"role": "user", "content": text}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])


def continue_greedily(model: Any, case: dict[str, Any], tokens: int) -> dict[str, Any]:
    with torch.inference_mode():
        steps = list(itertools.islice(greedy_steps(model, case["prompt"]), tokens))
    print(case["question_id"], len(case["prompt"]), min(gap for _, gap in steps), flush=True)
    output, gaps = zip(*steps, strict=True)
    return {**case, "output": output, "gaps": [round(gap, 5) for gap in gaps]}


def greedy_steps(model: Any, prompt: list[int]) -> Iterator[tuple[int, float]]:
    """The likeliest next token and how far its logit is above the second; end-of-sequence goes on."""
    ids, past = torch.tensor([prompt]), None
    while True:
        result = model(ids, past_key_values=past, use_cache=True, logits_to_keep=1)
        (first, second), token = result.logits[0, -1].topk(2)
        yield int(token[0]), float(first - second)
        ids, past = token[:1][None], result.past_key_values


def compact(golden: dict[str, Any]) -> str:
    """JSON with one line per case."""
    cases = ",\n".join(json.dumps(case) for case in golden.pop("cases"))
    return json.dumps(golden)[:-1] + ', "cases": [\n' + cases + "\n]}\n"


if __name__ == "__main__":
    main()
