"""Servers over one model: Salver and its peers, each started, awaited and stopped by itself.

Only one runs at a time, with the machine to itself but for the load generator.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from salver.workload.files import digest_of

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "engine"))  # peers.py: where environments and weights are

from peers import BF16_GGUF, GGUF, HUGGING_FACE, OPENVINO_IR, PEERS, Place  # noqa: E402

CONTEXT, SLOTS = 4096, 32
START_SECONDS = 240.0
NAME = "smollm2"
BEFORE_VLLM = HERE / "contract-vllm.yaml"
VLLM_PORT = 18011  # that the contract names


class ServerFailed(Exception):
    """A server is not there, ended before it was ready, or took too long."""


@dataclass(frozen=True)
class Server:
    """How to start one; `{port}` in the command stands for its port. `ready` answers 200 then.

    `starts_within` is about how many seconds that takes: a piece of work too short for it is not begun.
    `behind` is a server that it stands in front of, started before it; `port` is a fixed one, where the
    contract of what stands in front names it. `contract` is Salver's own.
    """

    name: str
    weights: str
    command: tuple[str, ...]
    ready: str = "/health"
    env: dict[str, str] = field(default_factory=dict)
    starts_within: float = 10.0
    port: int | None = None
    behind: "Server | None" = None
    contract: Path | None = None

    @property
    def claims(self) -> dict[str, str]:
        """What its runs are of, wherever it listens."""
        claims = {"server": self.name, "weights": self.weights}
        return claims | ({"contract": digest_of(self.contract)} if self.contract else {})

    @contextmanager
    def running(self, logs: Path) -> Iterator[str]:
        """Its address, while it and what it stands in front of run as children of this process.

        Raises ServerFailed.
        """
        behind = self.behind.running(logs) if self.behind else nullcontext()
        with behind, self._alone(logs) as url:
            yield url

    @contextmanager
    def _alone(self, logs: Path) -> Iterator[str]:
        port = self.port or _free_port()
        command = [part.replace("{port}", str(port)) for part in self.command]
        with (logs / f"{self.name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=_environment() | self.env,
            )
        try:
            url = f"http://127.0.0.1:{port}"
            _await(url + self.ready, process, self.name)
            yield url
        finally:
            _end(process)


def salver_server(contract: Path) -> Server:
    """Salver under a contract."""
    command = (sys.executable, "-m", "salver.cli", "serve", str(contract), "--port", "{port}")
    return Server("salver", "8-bit", command, "/ready", contract=contract)


def salver_before_vllm(vllm: Server) -> Server:
    """Salver as the queue in front of it."""
    server = salver_server(BEFORE_VLLM)
    behind = replace(vllm, port=VLLM_PORT)
    starts = vllm.starts_within + server.starts_within
    name = f"salver-{vllm.name}"
    return replace(server, name=name, weights=vllm.weights, starts_within=starts, behind=behind)


def servers(place: Place, contract: Path) -> tuple[list[Server], dict[str, str]]:
    """Those that can be started here, and for each that cannot its name and why."""
    found, missing = [salver_server(contract)], {}
    for peer in PEERS:
        for server in _of_peer(place, peer.name):
            if place.ready(peer).exists() and Path(server.command[-1]).exists():
                found.append(server)
            else:
                missing[server.name] = f"not installed in {place.root}"
    return found, missing


def select(
    found: Sequence[Server], missing: Mapping[str, str], names: Sequence[str] | None
) -> list[Server]:
    """The servers of these names, all that were found if None. Raises ServerFailed."""
    by_name = {server.name: server for server in found}
    for name in names or ():
        if name not in by_name:
            known = ", ".join((*by_name, *missing))
            raise ServerFailed(
                f"{name}: {missing.get(name, f'no server is called that; there are {known}')}"
            )
    return list(found) if names is None else [by_name[name] for name in dict.fromkeys(names)]


def _of_peer(place: Place, name: str) -> list[Server]:
    python = str(place.root / name / "bin" / "python")
    if name == "openvino":
        script = str(HERE / "serve_openvino.py")
        model = str(place.model(OPENVINO_IR))
        return [Server("openvino-4bit", "4-bit", (python, script, "{port}", model))]
    if name == "llamacpp":
        script = str(HERE / "serve_llamacpp.py")
        return [
            Server(peer, weights, (python, script, "{port}", str(place.model(kind))))
            for peer, weights, kind in (
                ("llamacpp-4bit", "4-bit", GGUF),
                ("llamacpp-bf16", "bf16", BF16_GGUF),
            )
        ]
    return [_vllm(place, python)]


def _vllm(place: Place, python: str) -> Server:
    """As its documentation recommends for a CPU; `adapter_vllm.py` says why."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    openmp = place.root / "vllm" / "lib" / "libiomp5.so"
    env = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_CACHE_ROOT": str(place.model(HUGGING_FACE).parent / "vllm-cache"),
        "VLLM_NO_USAGE_STATS": "1",
    } | ({"LD_PRELOAD": str(openmp)} if openmp.exists() else {})
    options = ("--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--max-num-seqs", "64")
    more = ("--host", "127.0.0.1", "--port", "{port}", "--served-model-name", NAME, "--model")
    module = (python, "-m", "vllm.entrypoints.openai.api_server")
    model = str(place.model(HUGGING_FACE))
    return Server(
        "vllm-bf16", "bf16", (*module, *options, *more, model), env=env, starts_within=90.0
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    """Ours without what would lead a peer into our environment."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    kept.pop("VIRTUAL_ENV", None)
    return kept


def _await(url: str, process: "subprocess.Popen[bytes]", name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"{name} ended with {process.returncode} before it was ready")
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise ServerFailed(f"{name} was not ready after {START_SECONDS:.0f} s")


def _end(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
