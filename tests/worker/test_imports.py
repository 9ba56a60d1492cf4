"""What a worker does not need it does not import: every start would wait for it."""

import subprocess
import sys

HEAVY = ["pydantic", "ruamel", "httpx", "jinja2", "asyncio", "rich", "fastapi", "sqlalchemy"]
OPEN = f"""
import sys
import salver.worker.__main__, salver.worker.model_engine
print([name for name in {HEAVY} if name in sys.modules])
"""


def test_a_worker_imports_neither_schema_nor_network_nor_templates() -> None:
    done = subprocess.run([sys.executable, "-c", OPEN], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
