"""`salver._native` is imported in `engine/runners` only: everything else meets a ModelRunner."""

import ast
from pathlib import Path

import salver

PACKAGE = Path(salver.__file__).parent


def imports_the_core(source: str) -> bool:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names) if any(n.name == "salver._native" for n in names):
                return True
            case ast.ImportFrom(module="salver._native"):
                return True
            case ast.ImportFrom(module="salver", names=names) if any(
                name.name == "_native" for name in names
            ):
                return True
    return False


def test_only_runners_import_the_core() -> None:
    importers = [path for path in PACKAGE.rglob("*.py") if imports_the_core(path.read_text())]
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in importers}
    assert folders == {"engine/runners"}
