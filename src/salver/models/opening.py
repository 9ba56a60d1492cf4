"""From a path to a model: the only place that tells the file formats apart."""

from pathlib import Path

from salver.models.checkpoint import Checkpoint
from salver.models.gguf_checkpoint import open_gguf
from salver.models.safetensors_checkpoint import open_safetensors


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a GGUF file, a .safetensors file beside its config.json, or a directory of both.

    Everything but the weights is validated. The files stay mapped as long as the checkpoint lives
    and must not change meanwhile.

    Raises:
        MalformedModel: the files are damaged, hostile or of an unknown kind.
        UnsupportedModel: the model needs something that this build does not compute.
    """
    if path.is_dir() or path.suffix == ".safetensors":
        return open_safetensors(path)
    return open_gguf(path)
