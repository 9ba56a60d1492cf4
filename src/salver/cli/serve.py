"""`salver serve`: check a contract, start its worker, and answer over HTTP.

The order is fixed: every check that `salver check` runs, then the port, then the worker, then
traffic. Nothing listens while a check fails, and nothing is answered before the worker has hashed
the bytes it serves.
"""

import json
import logging
import os
import signal
import socket
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from salver.cli import console
from salver.cli.check import examine, report_lines
from salver.cli.development import assume_contract
from salver.cli.exits import Exit
from salver.cli.first_request import ask as send_first_request
from salver.cli.fit import Artifact
from salver.cli.home import api_key, decisions_path, forced_isa, state_url, store_root
from salver.cli.service import Service
from salver.contract import Deployment, load_deployment
from salver.gateway import listen
from salver.gateway.service import Mode
from salver.registry import ArtifactStore

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="CONTRACT.yaml|MODEL",
            help="A contract; or a GGUF file or safetensors directory, to be served in development "
            "mode under a contract that is assumed and printed.",
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; beyond loopback only for a contract with tenants."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    ask: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Once ready, ask this over HTTP and print the answer; with the key in "
            "$SALVER_API_KEY, where one is needed.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Say where it listens as one line of JSON.")
    ] = False,
) -> None:
    """Check a contract and serve it."""
    development = target.suffix not in {".yaml", ".yml"}
    _require_loopback(host, None if development else target)
    _log_to_stderr()
    isa = forced_isa()
    deployment, artifact = _assumed(target, as_json=as_json) if development else _checked(target)
    mode: Mode = "development" if development else "production"
    service = Service(deployment, artifact, mode, store_root(), state_url(), decisions_path(), isa)
    listener = listen(host, port)
    url = _url(listener)

    async def on_ready() -> None:
        if as_json:
            facts = {
                "url": url,
                "model": deployment.name,
                "release": deployment.release.id,
                "mode": mode,
                "pid": os.getpid(),
            }
            console.say(json.dumps(facts))
        else:
            console.note(f"{console.bold(deployment.name)} ({mode}) is ready at {url}")
        if ask is not None:
            await send_first_request(url, deployment.name, ask, api_key())

    ended_by = uvloop.run(service.run(listener, on_ready))
    if ended_by is signal.SIGINT:
        raise typer.Exit(Exit.INTERRUPTED)


def _require_loopback(host: str, contract: Path | None) -> None:
    """Without keys, whoever reaches the port may use it; so nobody else may reach it.

    Raises:
        BadParameter: another host, and no contract or one without tenants.
        ContractError: the contract has faults.
    """
    if host in LOOPBACK:
        return
    if contract is None or not load_deployment(contract).tenants:
        raise typer.BadParameter(
            f"cannot listen on {host}: no contract declares tenants here, so there are no keys, "
            f"and without keys Salver listens on loopback only ({', '.join(LOOPBACK)})",
            param_hint="--host",
        )


def _log_to_stderr() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("salver").setLevel(logging.INFO)


def _checked(contract: Path) -> tuple[Deployment, Artifact]:
    """The deployment, if nothing that `salver check` looks at speaks against serving it."""
    report = examine(contract)
    code = report.exit(strict=True)
    if report.deployment is None or report.artifact is None or code is not Exit.DONE:
        console.note("\n".join(report_lines(report)))
        raise typer.Exit(code)
    for part in report.declared_only:
        console.note(f"not yet enforced: {part.path}: {part.sentence}")
    return report.deployment, report.artifact


def _assumed(model: Path, *, as_json: bool) -> tuple[Deployment, Artifact]:
    """The deployment of a bare model; the contract assumed for it is printed."""
    text, artifact = assume_contract(model, ArtifactStore(store_root()))
    if as_json:
        console.note(text)
    else:
        console.say(text)
    return load_deployment(text), artifact


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
