"""What requests say. A conversation grows: each turn begins with everything before it, exactly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from msgspec import json

from salver.workload.arrival import Message, Prompt
from salver.workload.files import parse_lines
from salver.workload.mix import PromptFile
from salver.workload.randomness import stream

FILLER = "Let me think about this step by step, and then say what follows from it. "
"""What a model is taken to have said in earlier turns of a text conversation."""
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Contents:
    """Names one telling of a flow: what is said in it is said in no other.

    Runs at several rates are several tellings. Were they one, a server would find the prompts of
    the second run in its prefix cache, and seem faster the more often it is measured.
    """

    seed: int
    flow: str
    telling: str

    def stream(self, *path: str | int) -> np.random.Generator:
        return stream(self.seed, self.flow, self.telling, *path)


class TokenPrompts:
    """Prompts of token ids drawn from [first, last).

    A *block* is a run of ids that its name alone decides: the same name, wherever it is asked for,
    is the same ids. Prefixes and the content identity of traces are both blocks.
    """

    def __init__(self, first: int, last: int, contents: Contents, *path: str | int) -> None:
        self._first, self._last = first, last
        self._contents = contents
        self._random = contents.stream(*path, "prompt")
        self._block = lru_cache(maxsize=65536)(self._draw_block)

    def draw(self, count: int) -> tuple[int, ...]:
        """Ids that nothing else shares."""
        return self._drawn(count, self._random)

    def block(self, kind: str, name: int, count: int) -> tuple[int, ...]:
        """The first `count` ids of a named block."""
        return self._block(kind, name, count)

    def content(self, names: Sequence[int], each: int, count: int) -> tuple[int, ...]:
        """`count` ids: named blocks of `each`, the last one cut to fit or continued by itself."""
        ids: list[int] = []
        for name in names:
            ids.extend(self.block("content", name, each))
        if len(ids) < count:
            ids.extend(self.block("rest", names[-1], count - len(ids)))
        return tuple(ids[:count])

    def _draw_block(self, kind: str, name: int, count: int) -> tuple[int, ...]:
        return self._drawn(count, self._contents.stream(kind, name))

    def _drawn(self, count: int, random: np.random.Generator) -> tuple[int, ...]:
        return tuple(random.integers(self._first, self._last, count).tolist())


def read_prompts(path: Path, spec: PromptFile) -> list[tuple[str, ...]]:
    """The turns of every line of a prompt file.

    Raises:
        MixError: the file cannot be read, or lines of it are not of the form.
    """

    def turns(line: bytes) -> tuple[str, ...]:
        record = json.decode(line, type=dict[str, object])
        value = record.get(spec.field)
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts:
            raise ValueError(f"no text under `{spec.field}`")
        if not all(isinstance(text, str) and text for text in texts):
            raise ValueError(f"`{spec.field}` holds something that is not a text")
        return tuple(texts)

    return parse_lines(path, turns, rule="prompts.form")


def conversation(
    turns: Sequence[str], spec: PromptFile, answers: Sequence[int], number: int
) -> Iterator[Prompt]:
    """The prompts of the first turns, one for each of `answers`: the tokens said after each."""
    messages = [Message("system", spec.system)] if spec.system else []
    opening = f"[{number}] " if spec.numbered else ""
    for text, answer in zip(turns, answers, strict=False):
        messages.append(Message("user", opening + text))
        opening = ""
        yield tuple(messages) if spec.send == "chat" else _as_text(messages)
        messages.append(Message("assistant", _said(answer)))


def _as_text(messages: Sequence[Message]) -> str:
    return "\n\n".join(message.content for message in messages)


def _said(tokens: int) -> str:
    characters = tokens * _CHARACTERS_PER_TOKEN
    return (FILLER * (characters // len(FILLER) + 1))[:characters]
