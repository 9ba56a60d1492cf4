"""A worker's second start reads the weights that its first one packed, and says the same."""

import shutil
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest

from salver.engine.core import EngineCore
from salver.engine.runners.choice import RunnerKind, native_is_built
from salver.models.gguf_checkpoint import GgufCheckpoint
from salver.registry.derived import derived_entries
from salver.testing.steps import Piece, lay_out
from salver.worker.model_engine import open_model_engine
from salver.worker.spec import WorkerSpec

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not native_is_built(), reason="this installation has no native core"),
]

PROMPT = [504, 3575, 282, 4649, 314]


@pytest.fixture
def spec(smollm2_spec: WorkerSpec, tmp_path: Path) -> WorkerSpec:
    """The native runner over a store that has no packed weights yet."""
    store = shutil.copytree(smollm2_spec.store, tmp_path / "store")
    return msgspec.structs.replace(smollm2_spec, store=str(store), runner=RunnerKind.NATIVE_W8A16)


def start(spec: WorkerSpec) -> EngineCore:
    core, _ = open_model_engine(spec)
    for thread in threading.enumerate():
        if thread.name == "keep":
            thread.join()
    return core


def logits(core: EngineCore) -> bytes:
    runner = core.runner
    runner.forward(lay_out([Piece("a", PROMPT, 0, [0])]))  # type: ignore[attr-defined]
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    rows = runner.logits(range(len(PROMPT)))  # type: ignore[attr-defined]
    return rows.tobytes()


def test_the_second_start_decodes_nothing_and_computes_the_same_bits(
    spec: WorkerSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = logits(start(spec))
    with monkeypatch.context() as patch:
        patch.delattr(GgufCheckpoint, "tensor")
        assert logits(start(spec)) == first
        # The same bytes with one-byte activations: another precision, no other entry.
        start(msgspec.structs.replace(spec, runner=RunnerKind.NATIVE_W8A8))
    assert [each.label for each in derived_entries(Path(spec.store))] == ["native-int8"]


def test_kept_weights_that_rotted_are_packed_again(
    spec: WorkerSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    first = logits(start(spec))
    [entry] = derived_entries(Path(spec.store))
    entry.path.chmod(0o600)
    with entry.path.open("r+b") as file:
        file.seek(entry.size // 2)
        byte = file.read(1)[0]
        file.seek(entry.size // 2)
        file.write(bytes([byte ^ 4]))
    assert logits(start(spec)) == first
    assert "is damaged and computed again" in capsys.readouterr().err
    assert logits(start(spec)) == first
    assert not capsys.readouterr().err
