"""The default model, verified, opened and run in a process of its own."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from salver.clock import MonotonicClock
from salver.contract import GenerateRequest, SamplingParams
from salver.errors import DoesNotFit, IntegrityError
from salver.models import open_model
from salver.registry import ArtifactStore, Digest
from salver.worker import ReadinessProbe, Supervisor, WorkerSpec

pytestmark = pytest.mark.model


@pytest.fixture
async def supervisor(smollm2_spec: WorkerSpec) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(smollm2_spec)
    yield supervisor
    await supervisor.stop()


async def test_the_default_model_answers_from_its_own_process(
    supervisor: Supervisor, smollm2_path: Path
) -> None:
    ready = await supervisor.start()
    tokenizer = open_model(smollm2_path).tokenizer

    async def answer(name: str, prompt: str) -> str:
        ids = tokenizer.encode(prompt, add_special_tokens=False, parse_special=False)
        sampling = SamplingParams(max_tokens=8, temperature=0.0, logprobs=2, prompt_logprobs=1)
        request = GenerateRequest(name, tuple(ids), sampling)
        chunks = [chunk async for chunk in supervisor.backend.generate(request)]
        assert len(chunks[0].prompt_logprobs) == len(ids)
        assert all(
            logprobs.top[0][0] == logprobs.token_id for c in chunks for logprobs in c.logprobs
        )
        return "".join(chunk.text for chunk in chunks)

    paris, sky = await asyncio.gather(
        answer("a", "The capital of France is"), answer("b", "The opposite of hot is")
    )
    assert "Paris" in paris
    assert "cold" in sky
    assert ready.model.architecture == "llama"
    assert 134_000_000 < ready.model.num_parameters < 135_000_000
    assert supervisor.statistics().resident_bytes < supervisor.statistics().memory_bytes

    probe = ReadinessProbe(supervisor.backend, (1,), 15.0, MonotonicClock())
    assert await probe.probe(), probe.last_error
    assert supervisor.backend.load().kv_blocks_owned == 0


async def test_bytes_that_were_changed_in_the_store_are_not_served(
    smollm2_spec: WorkerSpec, tmp_path: Path
) -> None:
    store = shutil.copytree(smollm2_spec.store, tmp_path / "store")
    path = ArtifactStore(store).open_verified(Digest.parse(smollm2_spec.digest))
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(IntegrityError):
        await Supervisor(msgspec.structs.replace(smollm2_spec, store=str(store))).start()


async def test_an_envelope_that_is_too_small_is_named(smollm2_spec: WorkerSpec) -> None:
    with pytest.raises(DoesNotFit) as caught:
        await Supervisor(msgspec.structs.replace(smollm2_spec, memory_bytes=2**29)).start()
    assert caught.value.rule == "envelope.memory"
