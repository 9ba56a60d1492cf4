"""What the gateway and a worker say to each other: the whole vocabulary of this process boundary.

A frame is four bytes of length (big-endian) and that many bytes of msgpack. The gateway's side
speaks in commands, the worker's in reports; a worker's first report is `Ready` or `Fatal`, and it
sends one `StepFrame` per engine step, however many sequences that step served. Nothing says
"stop": closing the socket does.

`FrameReader` does no I/O, so the thread in the worker and the event loop in the gateway share it.
"""

from typing import Generic, TypeVar

import msgspec

from salver.contract import Decision, GenerateRequest, LatencyModel, LoadSnapshot, TokenChunk
from salver.errors import MalformedFrame

PREFIX_BYTES = 4
MAX_COMMAND_BYTES = 16 * 2**20  # a prompt of three million tokens
MAX_REPORT_BYTES = 256 * 2**20  # prompt log-probabilities of a million tokens, 20 alternatives each


class Generate(msgspec.Struct, frozen=True, tag=True):
    """Compute this. Answered by chunks in step frames, or by one Refusal or Rejected."""

    request: GenerateRequest


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Nobody waits for this request any more. An id that has already ended is ignored."""

    request_id: str


class ModelFacts(msgspec.Struct, frozen=True):
    """What a worker found in the bytes it opened."""

    architecture: str
    num_parameters: int
    weights_bytes: int  # as they lie in memory
    planned_bytes: int  # what the memory plan allows for, all told
    latency: LatencyModel | None = None  # measured on the loaded model


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded and its bytes were checked; requests are taken from now on."""

    pid: int
    model: ModelFacts
    block_size: int  # tokens per KV block
    num_blocks: int
    resident_bytes: int  # what the process really held when it became ready
    load_seconds: float


class StepFrame(msgspec.Struct, frozen=True, tag=True):
    """Everything that one engine step produced, and the load after it."""

    chunks: tuple[TokenChunk, ...]
    load: LoadSnapshot


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """A bound was reached; nothing of this request was or will be computed."""

    request_id: str
    decision: Decision


class ErrorReport(msgspec.Struct, frozen=True):
    """An exception as plain data; `salver.worker.error_report` turns it back. `kind` is its class."""

    kind: str
    problem: str
    rule: str = ""
    value: int | float | str | None = None
    limit: int | float | str | None = None
    fix: str = ""


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """The request cannot be served as asked, by anyone at any time: a RequestError on arrival."""

    request_id: str
    error: ErrorReport


class Fatal(msgspec.Struct, frozen=True, tag=True):
    """The worker's last words."""

    error: ErrorReport


Command = Generate | Cancel
Report = Ready | StepFrame | Refusal | Rejected | Fatal

_encoder = msgspec.msgpack.Encoder()


def encode(frame: Command | Report, max_bytes: int) -> bytes:
    """One frame, ready to be sent.

    Raises:
        MalformedFrame: it would be over `max_bytes`, or holds a value that msgpack has no form for
            (an integer over 64 bits, half of a surrogate pair).
    """
    try:
        body = _encoder.encode(frame)
    except (UnicodeEncodeError, OverflowError) as error:
        raise MalformedFrame(
            f"a {type(frame).__name__} frame cannot be encoded: {error}", rule="worker.frame"
        ) from error
    if len(body) > max_bytes:
        raise _oversized(len(body), max_bytes)
    return len(body).to_bytes(PREFIX_BYTES, "big") + body


Frame = TypeVar("Frame")


class FrameReader(Generic[Frame]):
    """Cuts a byte stream into frames of one side's vocabulary."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[Frame], max_bytes: int) -> None:
        self._decoder = decoder
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order; the rest waits for more.

        Raises:
            MalformedFrame: over the bound, known from the length alone, or not in the vocabulary.
                The stream is lost from here on: close it.
        """
        self._buffer += data
        frames = []
        while (end := self._end_of_first_frame()) is not None:
            frames.append(self._decode(bytes(self._buffer[PREFIX_BYTES:end])))
            del self._buffer[:end]
        return frames

    def _end_of_first_frame(self) -> int | None:
        if len(self._buffer) < PREFIX_BYTES:
            return None
        size = int.from_bytes(self._buffer[:PREFIX_BYTES], "big")
        if size > self._max_bytes:
            raise _oversized(size, self._max_bytes)
        end = PREFIX_BYTES + size
        return end if len(self._buffer) >= end else None

    def _decode(self, body: bytes) -> Frame:
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedFrame(
                f"a frame of {len(body)} bytes is not in the vocabulary: {error}",
                rule="worker.frame",
            ) from error


def command_reader() -> FrameReader[Command]:
    """Reads what a gateway sends."""
    return FrameReader(msgspec.msgpack.Decoder(Command), MAX_COMMAND_BYTES)


def report_reader() -> FrameReader[Report]:
    """Reads what a worker sends."""
    return FrameReader(msgspec.msgpack.Decoder(Report), MAX_REPORT_BYTES)


def _oversized(size: int, limit: int) -> MalformedFrame:
    return MalformedFrame(
        f"a frame of {size} bytes is over the bound of {limit}",
        rule="worker.max_frame_bytes",
        value=size,
        limit=limit,
    )
