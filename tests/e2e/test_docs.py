"""The documents say what the code does: their code runs, their links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from salver.contract import load_deployment
from salver.engine.runners.choice import native_is_built

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The README's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shell_lines() -> list[str]:
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_blocks_are_found() -> None:
    assert (len(blocks("sh")), len(blocks("python")), len(blocks("yaml"))) == (2, 1, 1)


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("make ")])
def test_make_targets_of_the_readme_exist(line: str) -> None:
    subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.model
@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("salver ")])
def test_commands_of_the_readme_run(line: str, salver_home: Path) -> None:
    if not native_is_built():
        line = line.replace("smollm2.yaml", "smollm2-numpy.yaml")
    command = [sys.executable, "-m", "salver.cli", *line.split()[1:]]
    environment = {**os.environ, "SALVER_HOME": str(salver_home)}
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.model
def test_python_of_the_readme_streams_an_answer(
    server: "Server", capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("python")
    assert "http://127.0.0.1:8000" in code
    exec(code.replace("http://127.0.0.1:8000", server.url), {})
    assert len(capsys.readouterr().out.split()) > 3


def test_the_contract_of_the_readme_is_the_example() -> None:
    (text,) = blocks("yaml")
    assert load_deployment(text) == load_deployment(ROOT / "examples" / "smollm2.yaml")


def test_the_reference_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]), ids=str)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target
