"""The thinnest honest server over OpenVINO GenAI's continuous batching: PORT MODEL_DIRECTORY.

Its package has no HTTP server (that is OpenVINO Model Server, another product). This one reads a
completion, hands it to the pipeline's own scheduler, and writes an event per token; one thread steps
the pipeline while there is work. Tokens are turned into text one by one by the pipeline's tokenizer.
"""

import asyncio
import json
import os
import queue
import sys
import threading
from pathlib import Path

import numpy as np
import openvino
import openvino_genai

KV_CACHE_GB = 2


class Pipeline:
    """Requests in from any thread; `deliver(token)` and `deliver(None)` out, on the step thread."""

    def __init__(self, model):
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
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            model, scheduler, "CPU", properties
        )
        self.tokenizer = self._pipeline.get_tokenizer()
        self._new = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def submit(self, ids, max_tokens, deliver):
        self._new.put((ids, max_tokens, deliver))

    def _work(self):
        running, names = [], 0
        while True:
            while not running or not self._new.empty():
                ids, max_tokens, deliver = self._new.get()
                config = openvino_genai.GenerationConfig()
                config.max_new_tokens, config.ignore_eos, config.do_sample = max_tokens, True, False
                handle = self._pipeline.add_request(names, openvino.Tensor(ids), config)
                names += 1
                running.append((handle, deliver))
            self._pipeline.step()
            running = [pair for pair in running if self._drain(*pair)]

    @staticmethod
    def _drain(handle, deliver):
        while handle.can_read():
            for output in handle.read().values():
                for token in output.generated_ids:
                    deliver(token)
        if handle.get_status() == openvino_genai.GenerationStatus.RUNNING:
            return True
        deliver(None)
        return False


async def answer(pipeline, reader, writer):
    loop = asyncio.get_running_loop()
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
            tokens = asyncio.Queue()
            ids = ids_of(pipeline, body["prompt"])
            pipeline.submit(
                ids,
                body["max_tokens"],
                lambda token, put=tokens.put_nowait: loop.call_soon_threadsafe(put, token),
            )
            await stream(pipeline, tokens, ids.shape[1], writer)
    except ConnectionError:
        pass
    finally:
        writer.close()


def ids_of(pipeline, prompt):
    if isinstance(prompt, str):
        return np.array(pipeline.tokenizer.encode(prompt).input_ids.data, dtype=np.int64)
    return np.array([prompt], dtype=np.int64)


async def stream(pipeline, tokens, prompt_tokens, writer):
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    count = 0
    while (token := await tokens.get()) is not None:
        count += 1
        text = pipeline.tokenizer.decode([token])
        event(writer, {"choices": [{"index": 0, "text": text, "finish_reason": None}]})
        await writer.drain()
    event(writer, {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]})
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": count}
    event(writer, {"choices": [], "usage": usage})
    event(writer, "[DONE]")
    writer.write(b"0\r\n\r\n")


def event(writer, value):
    text = value if isinstance(value, str) else json.dumps(value)
    data = f"data: {text}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))


async def main(port, model):
    pipeline = Pipeline(model)

    async def serve(reader, writer):
        await answer(pipeline, reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", int(port))
    await server.serve_forever()


asyncio.run(main(*sys.argv[1:]))
