"""The request that `salver serve --ask` sends to itself, over HTTP like everybody's."""

import json

import httpx

from salver.cli import console


async def ask(url: str, model: str, text: str, key: str | None = None) -> None:
    """Ask one question, with a key where there is one, and print the answer as it streams in."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "temperature": 0,
        "max_completion_tokens": 64,
    }
    console.say(f"> {text}")
    async with (
        httpx.AsyncClient(base_url=url, timeout=None) as client,  # noqa: S113 - the server's own
        client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response,
    ):
        if response.is_error:
            console.note((await response.aread()).decode())
            return
        async for line in response.aiter_lines():
            console.write(_text(line))
    console.say("")


def _text(line: str) -> str:
    """What one line of the event stream adds to the answer."""
    data = line.removeprefix("data: ")
    if not data.startswith("{"):
        return ""
    choices = json.loads(data).get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")
