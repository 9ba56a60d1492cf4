"""A served model holds its weights, its KV pool and 150 MB, however much it has served."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from salver.contract import GenerateRequest, SamplingParams
from salver.engine.runners.choice import RunnerKind, native_is_built
from salver.models import open_checkpoint
from salver.registry import ArtifactRef, ArtifactStore, pull
from salver.worker import Supervisor, WorkerSpec
from salver.worker.model_engine import plan_of

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not native_is_built(), reason="this installation has no native core"),
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells this"),
]

BESIDE_WEIGHTS_AND_POOL = 150_000_000  # interpreter, tokenizer, the largest step, its logits
STREAMS, STREAM_PROMPT = 64, 100
LONG_PROMPT = 4000


@pytest.fixture
def spec(smollm2_path: Path, tmp_path: Path) -> WorkerSpec:
    """As the example has it, but a pool that three long prompts fill."""
    store = ArtifactStore(tmp_path)
    pulled = pull(ArtifactRef.parse(f"file:{smollm2_path}"), store=store)
    return WorkerSpec(
        name="smollm2",
        store=str(store.root),
        digest=str(pulled.digest),
        memory_bytes=480 * 2**20,
        threads=2,
        max_context_tokens=4096,
        max_running=64,
        max_batch_tokens=512,
        max_queued_requests=128,
        max_queued_tokens=65536,
        runner=RunnerKind.NATIVE_W8A16_INT8,
    )


@pytest.fixture
async def supervisor(spec: WorkerSpec) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(spec)
    yield supervisor
    await supervisor.stop()


async def test_the_resident_set_is_weights_pool_and_little_more(
    supervisor: Supervisor, spec: WorkerSpec, smollm2_path: Path
) -> None:
    """On a first start, which decodes and packs the weights; every block of the pool was written."""
    plan = plan_of(spec, open_checkpoint(smollm2_path))
    await supervisor.start()
    resident = [resident_bytes(supervisor)]
    for lengths in ([STREAM_PROMPT + i for i in range(STREAMS)], [LONG_PROMPT] * 3):
        await serve(supervisor, lengths)
        resident.append(resident_bytes(supervisor))
    load = supervisor.backend.load()
    assert load.kv_blocks_total == plan.num_blocks
    assert load.kv_blocks_cached >= 0.9 * plan.num_blocks, "some of the pool may be untouched"
    held = plan.weights_bytes + plan.kv_pool_bytes
    assert resident[-1] > held, "another process was measured, or not all of it"
    assert max(resident) <= held + BESIDE_WEIGHTS_AND_POOL, resident


async def serve(supervisor: Supervisor, lengths: Sequence[int]) -> None:
    """Prompts of these lengths at once, no two of them alike, with everything that takes memory."""
    chance = random.Random(len(lengths))

    async def stream(index: int, length: int) -> None:
        prompt = tuple(chance.randrange(1000, 49000) for _ in range(length))
        sampling = SamplingParams(
            max_tokens=16, temperature=0.8, top_p=0.9, seed=index, logprobs=5, ignore_eos=True
        )
        request = GenerateRequest(f"{length} {index}", prompt, sampling)
        async for _ in supervisor.backend.generate(request):
            pass

    await asyncio.gather(*(stream(index, length) for index, length in enumerate(lengths)))


def resident_bytes(supervisor: Supervisor) -> int:
    """What the kernel counts as this process's own and shared pages."""
    lines = Path(f"/proc/{supervisor.statistics().pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))
