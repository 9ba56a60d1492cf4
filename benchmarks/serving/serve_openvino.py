"""The thinnest honest server over OpenVINO GenAI's continuous batching: PORT MODEL_DIRECTORY.

Its package has no HTTP server (that is OpenVINO Model Server, another product). This one reads a
completion, hands it to the pipeline's own scheduler, and writes an event per token. The pipeline
steps in a process of its own, since `step()` keeps Python's lock until it returns: an event loop
beside it would take one turn per step. Tokens become text one by one, by the pipeline's tokenizer.
"""

import asyncio
import json
import multiprocessing
import os
import sys
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import openvino
import openvino_genai
from numpy.typing import NDArray

KV_CACHE_GB = 2

Ids = NDArray[np.int64]
Pipe: TypeAlias = "Connection[Any, Any]"
Tokens = asyncio.Queue[list[int] | None]


def step_for_ever(pipe: Pipe, model: str) -> None:
    """The pipeline's process: (name, ids, max_tokens) in, or (name, None, 0) to give one up; per
    step a list of (name, tokens, ended) out."""
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = KV_CACHE_GB
    scheduler.max_num_seqs = 64
    scheduler.max_num_batched_tokens = 512
    scheduler.dynamic_split_fuse = True
    scheduler.enable_prefix_caching = True
    properties = {
        "INFERENCE_NUM_THREADS": os.cpu_count(),
        "NUM_STREAMS": "1",
        "CACHE_DIR": str(Path(model) / "cache"),
    }
    pipeline = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", properties)
    pipe.send("ready")
    running: dict[int, openvino_genai.py_openvino_genai.GenerationHandle] = {}
    while True:
        while not running or pipe.poll():
            name, ids, max_tokens = pipe.recv()
            if ids is None:
                if name in running:
                    running[name].cancel()
                continue
            config = openvino_genai.GenerationConfig()
            config.max_new_tokens, config.ignore_eos, config.do_sample = max_tokens, True, False
            running[name] = pipeline.add_request(name, openvino.Tensor(ids), config)
        pipeline.step()
        told = [(name, *drained(handle)) for name, handle in running.items()]
        pipe.send([one for one in told if one[1] or one[2]])
        for name, _, ended in told:
            if ended:
                del running[name]


def drained(handle: openvino_genai.py_openvino_genai.GenerationHandle) -> tuple[list[int], bool]:
    tokens: list[int] = []
    while handle.can_read():
        for output in handle.read().values():
            tokens.extend(output.generated_ids)
    return tokens, handle.get_status() != openvino_genai.GenerationStatus.RUNNING


class Pipeline:
    """The pipeline's process seen from the event loop."""

    def __init__(self, model: str) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        spawn.Process(target=step_for_ever, args=(theirs, model), daemon=True).start()
        theirs.close()
        self.tokenizer = openvino_genai.Tokenizer(model)
        self._names, self._waiting = count(), dict[int, Tokens]()
        self._pipe.recv()

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.add_reader(self._pipe.fileno(), self._hear)

    def submit(self, ids: Ids, max_tokens: int) -> tuple[int, Tokens]:
        """Its name, and a queue of lists of tokens, with None at the end."""
        name, tokens = next(self._names), Tokens()
        self._waiting[name] = tokens
        self._pipe.send((name, ids, max_tokens))
        return name, tokens

    def give_up(self, name: int) -> None:
        if name in self._waiting:
            self._pipe.send((name, None, 0))

    def _hear(self) -> None:
        for name, tokens, ended in self._pipe.recv():
            queue = self._waiting[name]
            if tokens:
                queue.put_nowait(tokens)
            if ended:
                queue.put_nowait(None)
                del self._waiting[name]


async def answer(
    pipeline: Pipeline, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while line := await reader.readline():
            length = 0
            while (header := (await reader.readline()).decode().strip().lower()) != "":
                if header.startswith("content-length:"):
                    length = int(header.split(":")[1])
            if line.startswith(b"GET"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                continue
            body = json.loads(await reader.readexactly(length))
            ids = ids_of(pipeline, body["prompt"])
            name, tokens = pipeline.submit(ids, body["max_tokens"])
            gone = asyncio.ensure_future(reader.read(1))  # who is being answered says nothing more
            gone.add_done_callback(partial(_gone, pipeline, name))
            try:
                await stream(pipeline, tokens, ids.shape[1], writer)
            finally:
                gone.cancel()
    except ConnectionError:
        pass
    finally:
        writer.close()


def _gone(pipeline: Pipeline, name: int, _: object) -> None:
    pipeline.give_up(name)


def ids_of(pipeline: Pipeline, prompt: str | list[int]) -> Ids:
    if isinstance(prompt, str):
        return np.array(pipeline.tokenizer.encode(prompt).input_ids.data, dtype=np.int64)
    return np.array([prompt], dtype=np.int64)


async def stream(
    pipeline: Pipeline, tokens: Tokens, prompt_tokens: int, writer: asyncio.StreamWriter
) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    told = 0
    while (new := await tokens.get()) is not None:
        for token in new:
            told += 1
            text = pipeline.tokenizer.decode([token])
            event(writer, {"choices": [{"index": 0, "text": text, "finish_reason": None}]})
        await writer.drain()
    event(writer, {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": told}
    event(writer, {"choices": [], "usage": usage})
    event(writer, "[DONE]")
    writer.write(b"0\r\n\r\n")


def event(writer: asyncio.StreamWriter, value: object) -> None:
    text = value if isinstance(value, str) else json.dumps(value)
    data = f"data: {text}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


async def main(port: str, model: str) -> None:
    pipeline = Pipeline(model)
    pipeline.listen(asyncio.get_running_loop())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(pipeline, reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", int(port))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
