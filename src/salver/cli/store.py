"""`salver store`: what the artifact store holds, and what of it can be had again without a network."""

from pathlib import Path
from typing import Annotated, Any

import typer

from salver.cli import console
from salver.cli.home import store_root
from salver.registry.derived import DerivedEntry, derived_entries
from salver.registry.digest import Digest


def store(
    drop_packed: Annotated[
        bool,
        typer.Option("--drop-packed", help="Remove all packed weights; the next start packs anew."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the artifacts in the store and the packed weights kept beside them."""
    root = store_root()
    artifacts, packed = _artifacts(root), list(derived_entries(root))
    if drop_packed:
        for entry in packed:
            entry.remove()
    if as_json:
        console.say_json(_record(root, artifacts, packed, dropped=drop_packed))
        return
    console.say(f"{root}\n{console.table(_rows(artifacts, packed))}")
    if drop_packed:
        freed = sum(entry.size for entry in packed)
        console.say(f"removed {len(packed)} packed, {console.size(freed)}")


def _artifacts(root: Path) -> list[tuple[Digest, int]]:
    """Every file by digest, with its size in bytes."""
    objects = sorted((root / "objects").glob("*"))
    return [(Digest(path.name), path.stat().st_size) for path in objects]


def _rows(artifacts: list[tuple[Digest, int]], packed: list[DerivedEntry]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]]
    rows = [("artifact", str(digest), console.size(size)) for digest, size in artifacts]
    rows += [
        ("packed", f"{entry.source} {entry.label}", console.size(entry.size)) for entry in packed
    ]
    return rows or [("empty", "", "")]


def _record(
    root: Path, artifacts: list[tuple[Digest, int]], packed: list[DerivedEntry], *, dropped: bool
) -> dict[str, Any]:
    return {
        "root": str(root),
        "artifacts": [{"digest": str(digest), "size": size} for digest, size in artifacts],
        "packed": [
            {"source": str(each.source), "label": each.label, "size": each.size} for each in packed
        ],
        "dropped": dropped,
    }
