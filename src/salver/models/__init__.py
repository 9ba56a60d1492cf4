"""Checkpoints, tokenizers and chat templates."""

from salver.models.checkpoint import Checkpoint
from salver.models.config import ModelConfig, RopeConfig, RopeScaling
from salver.models.names import expected_tensors
from salver.models.opening import open_checkpoint

__all__ = [
    "Checkpoint",
    "ModelConfig",
    "RopeConfig",
    "RopeScaling",
    "expected_tensors",
    "open_checkpoint",
]
