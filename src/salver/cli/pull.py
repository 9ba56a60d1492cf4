"""`salver pull`: have an artifact on this machine, and print the digest a contract needs."""

from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from salver.cli import console
from salver.cli.home import store_root
from salver.contract import load_deployment
from salver.registry import ArtifactRef, ArtifactStore, Digest, Pulled
from salver.registry import pull as pull_artifact

_CONTRACT_SUFFIXES = (".yaml", ".yml")


def pull(
    artifact: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT|CONTRACT.yaml",
            help="file:PATH, pypi:NAME==VERSION/PATH, hf:ORG/REPO@REVISION/FILE, https://HOST/PATH, "
            "or a contract, whose release's artifact and digest are then used.",
        ),
    ],
    digest: Annotated[
        str | None, typer.Option(help="Accept only these bytes: sha256:HEX.", metavar="DIGEST")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fetch an artifact into the store, verify it, and print its digest line for a contract."""
    ref, expected = _meaning(artifact, digest)
    with TerminalProgress() as progress:
        pulled = pull_artifact(
            ref, digest=expected, store=ArtifactStore(store_root()), progress=progress
        )
    if as_json:
        console.say_json(_record(pulled))
    else:
        console.say(_lines(pulled, asked=ref))


class TerminalProgress:
    """Shows a pull on stderr: bars where that is a terminal, notes in any case."""

    def __init__(self, terminal: Console | None = None) -> None:
        self._console = terminal or Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def report(self, what: str, done: int, total: int | None) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what)
        self._bars.update(self._tasks[what], completed=done, total=total)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _meaning(artifact: str, digest: str | None) -> tuple[ArtifactRef, Digest | None]:
    """What to fetch and which bytes to accept; a relative `file:` starts at its contract."""
    path = Path(artifact)
    if path.suffix not in _CONTRACT_SUFFIXES or artifact.startswith("file:"):
        return ArtifactRef.parse(artifact), Digest.parse(digest) if digest else None
    if digest is not None:
        raise typer.BadParameter("a contract declares its digest itself", param_hint="--digest")
    release = load_deployment(path).release
    return ArtifactRef.parse(release.artifact, base=path.parent), Digest.parse(release.digest)


def _lines(pulled: Pulled, *, asked: ArtifactRef) -> str:
    """YAML for the release section of a contract; the artifact too if its name was mutable."""
    resolved = f"artifact: {pulled.ref}\n" if pulled.ref != asked else ""
    return f"{resolved}digest: {pulled.digest}"


def _record(pulled: Pulled) -> dict[str, str | int | bool]:
    return {
        "artifact": str(pulled.ref),
        "digest": str(pulled.digest),
        "size": pulled.size,
        "path": str(pulled.path),
        "fetched": pulled.fetched,
    }
