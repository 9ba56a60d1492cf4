"""One view of a model file, whatever its format.

Tensor names and layouts are those of Hugging Face `transformers` for the Llama family
(`model.embed_tokens.weight`, `model.layers.{i}.self_attn.q_proj.weight`, `model.norm.weight`,
`lm_head.weight`, ...): a linear weight is [out_features, in_features], and q and k rows are in the
rotate-half order. A format that stores them otherwise converts on the way in.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from salver.models.config import ModelConfig
from salver.models.groups import FourBitGroups


class Checkpoint(Protocol):
    """An opened model file. Opening validates every header, name and shape; no weight is read."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def formats(self) -> Mapping[str, str]:
        """How the file stores each tensor, by tensor name: `Q4_1`, `F16`, `BF16`, ..."""
        ...

    def groups(self, name: str) -> FourBitGroups:
        """Read one tensor whose format is in `GROUP_KINDS` as it is, in the layout named above.

        Raises:
            MalformedModel: the tensor is absent, or not of such a format, or a scale is not finite.
        """
        ...

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Read one tensor, dequantized to float32, C-contiguous, in the layout named above.

        Raises:
            MalformedModel: the tensor is absent or its bytes cannot be decoded.
        """
        ...
