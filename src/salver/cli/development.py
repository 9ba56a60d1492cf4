"""Development mode: a contract for a model that has none.

`salver serve MODEL` assumes an envelope from the model and the machine, says so in writing, and
then goes the way of every contract. What it prints can be saved, completed and served as it is.
"""

import json
import re
from pathlib import Path

from salver.cli.fit import TO_GET_THE_CORE, Artifact, default_kind, plan_envelope
from salver.cli.machine import Machine, this_machine
from salver.contract import Envelope
from salver.engine.runners.choice import RunnerKind
from salver.models import Checkpoint, open_checkpoint
from salver.registry import ArtifactRef, ArtifactStore, pull

MAX_CONTEXT_TOKENS = 4096
MAX_RUNNING = 16
SHARE_OF_FREE_MEMORY = 0.7
MIB = 2**20

_TEMPLATE = """\
# Assumed for {path}: development mode, loopback only. Complete it before production.
{without_core}apiVersion: salver/v1
kind: Deployment
name: {name}
owner: nobody, this is development mode
release:
  artifact: {artifact}
  digest: {digest}
  runtime: {{engine: {engine}, quantization: {quantization}, kv_cache: {kv_cache}}}
  envelope:
    memory: {memory}MiB
    threads: {threads}
    max_context_tokens: {context}
    max_output_tokens: {output}
    max_running: {running}
    max_batch_tokens: 512
"""
_WITHOUT_CORE = f"""\
# This installation has no native core, so NumPy computes, which is slow: {TO_GET_THE_CORE}.
"""


def assume_contract(model: Path, store: ArtifactStore) -> tuple[str, Artifact]:
    """Take the model into the store and write the contract that would serve it here.

    Returns:
        The contract, and the model that it names.

    Raises:
        FetchError: there is no such file.
        IntegrityError: it is not a model that can be trusted.
    """
    reference = ArtifactRef.parse(f"file:{model.resolve()}")
    pulled = pull(reference, store=store)
    checkpoint = open_checkpoint(pulled.path)  # pulling ends with a verified opening
    machine = this_machine()
    context = min(MAX_CONTEXT_TOKENS, checkpoint.config.max_positions)
    kind = default_kind()
    text = _TEMPLATE.format(
        path=json.dumps(str(model)),
        without_core="" if kind.is_native else _WITHOUT_CORE,
        name=_name(model),
        artifact=json.dumps(str(reference)),  # JSON strings are YAML strings
        digest=pulled.digest,
        **_runtime(kind),
        memory=_memory(kind, checkpoint, machine, context) // MIB,
        threads=machine.cores,
        context=context,
        output=context // 2,
        running=MAX_RUNNING,
    )
    return text, Artifact(pulled.path, checkpoint)


def _runtime(kind: RunnerKind) -> dict[str, str]:
    engine, quantization, kv_cache = kind.split("/")
    return {"engine": engine, "quantization": quantization, "kv_cache": kv_cache}


def _memory(kind: RunnerKind, checkpoint: Checkpoint, machine: Machine, context: int) -> int:
    """What `MAX_RUNNING` full contexts would use, but no more than a share of what is free."""
    share = int(machine.memory_available * SHARE_OF_FREE_MEMORY)
    envelope = Envelope.model_construct(
        memory=2**60,
        threads=machine.cores,
        max_context_tokens=context,
        max_output_tokens=context // 2,
        max_running=MAX_RUNNING,
        max_batch_tokens=512,
    )
    return min(share, plan_envelope(kind, envelope, checkpoint).total_bytes + MIB)


def _name(model: Path) -> str:
    """The file's name as a deployment's name."""
    stem = model.stem if model.is_file() else model.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem)[:60].strip("._-") or "model"
