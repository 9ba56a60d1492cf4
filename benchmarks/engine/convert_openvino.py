"""Let OpenVINO GenAI read a GGUF once and keep its own format: python convert_openvino.py FROM TO

Runs in OpenVINO's environment. The format lands beside the file that was read, so the file is
linked into TO first.
"""

import sys
from pathlib import Path

import openvino_genai


def convert(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    link = target / source.name
    link.symlink_to(source)
    openvino_genai.LLMPipeline(str(link), "CPU", enable_save_ov_model=True)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
