"""`salver pull`: what it prints, where, and how it ends."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from rich.console import Console

from salver.cli.app import run
from salver.cli.pull import TerminalProgress
from salver.registry import ArtifactRef, Digest, HfRef, Pulled


def digest_of(path: Path) -> str:
    return f"sha256:{sha256(path.read_bytes()).hexdigest()}"


def test_an_artifact_is_pulled_and_its_digest_printed(
    tiny_gguf: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pull", f"file:{tiny_gguf}"]) == 0
    assert capsys.readouterr().out == f"digest: {digest_of(tiny_gguf)}\n"
    assert list((home / "store" / "objects").iterdir())


def test_json_tells_everything(tiny_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for fetched in (True, False):
        digest = digest_of(tiny_gguf)
        assert run(["pull", f"file:{tiny_gguf}", "--digest", digest, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["fetched"] is fetched
        assert (told["digest"], told["size"]) == (digest, tiny_gguf.stat().st_size)
        assert Path(told["path"]).read_bytes() == tiny_gguf.read_bytes()


def test_a_contract_says_what_to_pull(
    contract: Callable[..., Path], tiny_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pull", str(contract())]) == 0
    assert digest_of(tiny_gguf) in capsys.readouterr().out


def test_a_relative_file_starts_at_its_contract(
    contract: Callable[..., Path], tiny_gguf: Path
) -> None:
    path = contract()
    (path.parent / "near.gguf").write_bytes(tiny_gguf.read_bytes())
    path.write_text(path.read_text().replace(str(tiny_gguf), "near.gguf"))
    assert run(["pull", str(path)]) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ftp://host/m.gguf"], 2, "artifact.scheme"),
        (["file:model.pt"], 2, "artifact.code"),
        (["file:absent.gguf"], 6, "cannot be read"),
        (["file:{tiny}", "--digest", "sha256:" + "0" * 64], 4, "not the declared"),
        (["file:{tiny}", "--digest", "md5:0"], 2, "digest.form"),
        (["absent.yaml"], 2, "cannot be read"),
        (["{contract}", "--digest", "sha256:" + "0" * 64], 2, "declares its digest itself"),
    ],
)
def test_what_goes_wrong_has_its_code_and_its_words(
    arguments: list[str],
    code: int,
    said: str,
    contract: Callable[..., Path],
    tiny_gguf: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"tiny": tiny_gguf, "contract": contract()}
    assert run(["pull", *(argument.format(**names) for argument in arguments)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in " ".join(captured.err.split())


def test_a_branch_is_printed_as_the_commit_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"

    def resolved(ref: ArtifactRef, **_: object) -> Pulled:
        assert ref == HfRef("org/repo", "main", "m.gguf")
        return Pulled(HfRef("org/repo", commit, "m.gguf"), Digest("0" * 64), tmp_path, 1, True)

    monkeypatch.setattr("salver.cli.pull.pull_artifact", resolved)
    assert run(["pull", "hf:org/repo@main/m.gguf"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"artifact: hf:org/repo@{commit}/m.gguf", f"digest: sha256:{'0' * 64}"]


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_are_drawn_on_a_terminal_only(
    terminal: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with TerminalProgress(Console(stderr=True, force_terminal=terminal, width=100)) as progress:
        progress.report("m.gguf", 1 << 20, 2 << 20)
        progress.note("waiting for [process 7]")
    shown = capsys.readouterr()
    assert ("m.gguf" in shown.err) is terminal
    assert "waiting for [process 7]" in shown.err
    assert shown.out == ""
