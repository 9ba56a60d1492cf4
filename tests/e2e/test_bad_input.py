"""A table of bad inputs, each with its code and message; nothing leaks, nothing hangs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from salver.registry import ArtifactRef, ArtifactStore, pull

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

pytestmark = pytest.mark.model

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "hello"}]


def chat(**fields: object) -> bytes:
    return json.dumps({"model": "smollm2", "messages": MESSAGES, **fields}).encode()


def completion(**fields: object) -> bytes:
    return json.dumps({"model": "smollm2", "prompt": "hello", **fields}).encode()


REQUESTS: list[tuple[str, str, bytes, int, str, str | None]] = [
    # what, path, body, status, code, param
    ("malformed JSON", CHAT, b'{"model": "smollm2",', 400, "malformed_request", None),
    ("not an object", CHAT, b"[1, 2]", 400, "malformed_request", None),
    ("invalid UTF-8", CHAT, b'{"model": "\xff\xfe"}', 400, "malformed_request", None),
    ("half a surrogate pair", CHAT, chat(user="x").replace(b'"x"', b'"\\ud800"'), 400, "", None),
    ("deep nesting", CHAT, b"[" * 100_000, 400, "malformed_request", None),
    ("a repeated key", CHAT, b'{"model": "a", "model": "b"}', 400, "malformed_request", None),
    ("not a number", CHAT, chat(temperature=float("nan")), 400, "malformed_request", None),
    ("wrong type", CHAT, chat(max_tokens="many"), 400, "malformed_request", "max_tokens"),
    ("a field missing", CHAT, b'{"model": "smollm2"}', 400, "malformed_request", "messages"),
    ("an unknown field", CHAT, chat(temprature=1), 400, "unsupported_field", "temprature"),
    ("a known field, not here", CHAT, chat(modalities=["audio"]), 400, "", "modalities"),
    ("an unknown model", CHAT, chat(model="gpt-9"), 404, "model_not_found", "model"),
    ("10 MB", CHAT, chat(user="x" * 10_000_000), 413, "too_large", None),
    ("a prompt over the envelope", COMPLETION, completion(prompt="a b " * 9000), 413, "", "prompt"),
    ("token ids over the envelope", COMPLETION, completion(prompt=[5] * 5000), 413, "", "prompt"),
    ("negative max_tokens", CHAT, chat(max_tokens=-1), 422, "invalid_value", "max_tokens"),
    ("temperature 9", CHAT, chat(temperature=9), 422, "invalid_value", "temperature"),
    ("an empty prompt", COMPLETION, completion(prompt=""), 422, "invalid_value", "prompt"),
    ("a token that is none", COMPLETION, completion(prompt=[10**6]), 422, "", "prompt"),
    ("no such path", "/v1/nothing", b"{}", 404, "not_found", None),
]


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [row[1:] for row in REQUESTS],
    ids=[row[0] for row in REQUESTS],
)
def test_a_bad_request_is_told_what_is_wrong(
    server: "Server", path: str, body: bytes, status: int, code: str, param: str | None
) -> None:
    with server.client(timeout=20) as client:
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, answer.text
        error: dict[str, Any] = answer.json()["error"]
        assert error["message"]
        assert error["rule"]
        assert code in error["code"]
        assert param is None or error["param"] == param
        assert len(answer.content) < 2000, "an error repeats the request"
        assert "Traceback" not in answer.text
        assert client.get("/health").status_code == 200
    assert server.metric("vllm:num_requests_running") == 0
    assert server.metric("vllm:kv_cache_usage_perc") == 0


# -- files that are not what they should be ------------------------------------------------------


def serve(home: Path, target: Path) -> "subprocess.CompletedProcess[str]":
    """`salver serve` on something that must not be served; it ends by itself."""
    command = [sys.executable, "-m", "salver.cli", "serve", str(target), "--port", "0"]
    environment = {**os.environ, "SALVER_HOME": str(home)}
    return subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, timeout=60
    )


def contract_of(artifact: Path, digest: str, folder: Path) -> Path:
    example = (Path(__file__).parents[2] / "examples" / "smollm2-numpy.yaml").read_text()
    lines = [
        f"  artifact: file:{artifact}"
        if line.startswith("  artifact:")
        else f"  digest: {digest}"
        if line.startswith("  digest:")
        else line
        for line in example.splitlines()
    ]
    contract = folder / "contract.yaml"
    contract.write_text("\n".join(lines))
    return contract


def test_a_truncated_model_is_refused_by_name(smollm2_path: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with smollm2_path.open("rb") as file:
        cut.write_bytes(file.read(50_000_000))
    done = serve(tmp_path / "home", cut)
    assert done.returncode == 4, done.stderr
    assert "fix" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_flipped_header_bit_is_refused_by_name(smollm2_path: Path, tmp_path: Path) -> None:
    flipped = tmp_path / "flipped.gguf"
    data = bytearray(smollm2_path.read_bytes())
    data[12] ^= 0x40  # in the number of tensors
    flipped.write_bytes(data)
    done = serve(tmp_path / "home", flipped)
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr


def test_a_bit_flipped_in_the_store_is_never_served(smollm2_path: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    pulled = pull(ArtifactRef.parse(f"file:{smollm2_path}"), store=ArtifactStore(home / "store"))
    pulled.path.chmod(0o644)
    with pulled.path.open("r+b") as file:
        file.seek(60_000_000)
        byte = file.read(1)[0]
        file.seek(60_000_000)
        file.write(bytes([byte ^ 1]))
    done = serve(home, contract_of(smollm2_path, str(pulled.digest), tmp_path))
    assert done.returncode == 4, done.stderr
    assert str(pulled.digest) in done.stderr


def test_a_wrong_digest_is_not_pulled(smollm2_path: Path, tmp_path: Path) -> None:
    contract = contract_of(smollm2_path, f"sha256:{'0' * 64}", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "salver.cli", "pull", str(contract)],
        check=False,
        env={**os.environ, "SALVER_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4, done.stderr
    assert "sha256:0000" in done.stderr
    assert not list((tmp_path / "home").rglob("*b179c9523d0e"))


def test_what_was_not_pulled_is_not_served(smollm2_path: Path, tmp_path: Path) -> None:
    contract = contract_of(smollm2_path, f"sha256:{'0' * 64}", tmp_path)
    done = serve(tmp_path / "home", contract)
    assert done.returncode == 1
    assert f"salver pull {contract}" in done.stderr
