"""Which of a file's matrices the native core can hold as the file's own 4-bit groups.

The core's matrices are made of one to three of the file's, which must agree: a fused matrix is in
4-bit groups only where all its parts are, in the same kind. All others are held as `w8a16` holds them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from salver.errors import UnsupportedModel
from salver.models.config import ModelConfig
from salver.models.groups import GROUP_KINDS, GroupKind

MATRICES: Final[Mapping[str, tuple[str, ...]]] = {
    "qkv": tuple(f"self_attn.{part}_proj.weight" for part in "qkv"),
    "output": ("self_attn.o_proj.weight",),
    "gate_up": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "down": ("mlp.down_proj.weight",),
}
"""The core's matrix -> the tensors it is made of, in a layer."""

LayerKinds = Sequence[Mapping[str, GroupKind]]
"""For each layer, the matrices that are in 4-bit groups."""


def layer_kinds(config: ModelConfig, formats: Mapping[str, str], precision: str) -> LayerKinds:
    """What a precision holds in 4-bit groups, by the formats in which a file stores its tensors.

    Raises:
        UnsupportedModel: the precision is `q4`, and nothing is in such groups.
    """
    if precision != "q4":
        return [{}] * config.num_layers
    layers = [_layer_kinds(formats, index) for index in range(config.num_layers)]
    if any(layers):
        return layers
    found = Counter(kind for name, kind in formats.items() if name.endswith("_proj.weight"))
    listed = ", ".join(kind for kind, _ in found.most_common()) or "nothing known"
    raise UnsupportedModel(
        f"`quantization: q4` computes with the 4-bit groups of a GGUF file; this file's matrices are"
        f" stored as {listed}, none of them in groups that the core can hold",
        rule="runtime.q4_groups",
        value=listed,
        limit=", ".join(GROUP_KINDS),
        fix=f"use `quantization: w8a16`, or a GGUF file stored as {', '.join(GROUP_KINDS)}",
    )


def _layer_kinds(formats: Mapping[str, str], index: int) -> dict[str, GroupKind]:
    kinds = {}
    for matrix, parts in MATRICES.items():
        found = {GROUP_KINDS.get(formats.get(f"model.layers.{index}.{part}", "")) for part in parts}
        if len(found) == 1 and (kind := found.pop()):
            kinds[matrix] = kind
    return kinds
