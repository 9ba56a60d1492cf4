"""`salver keys`: make, list and revoke the keys of tenants.

A gateway that runs takes changes up by itself, within seconds.
"""

from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from salver.cli import console
from salver.cli.home import state_url
from salver.contract.scope import Scope

if TYPE_CHECKING:
    from salver.state import KeyRecord

DAY_SECONDS = 86_400.0

keys = typer.Typer(
    help="Create, list and revoke API keys.", no_args_is_help=True, rich_markup_mode=None
)
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@keys.command()
def create(
    tenant: Annotated[str, typer.Argument(help="A tenant, as a contract names it.")],
    scope: Annotated[
        list[Scope], typer.Option(help="What it may be used for; can be given several times.")
    ] = [Scope.INFERENCE],  # noqa: B006 - typer reads it once and hands out a copy
    days: Annotated[
        float | None, typer.Option(min=0.0, help="It expires after so many; never if absent.")
    ] = None,
    note: Annotated[str, typer.Option(help="What it is for, shown by `salver keys list`.")] = "",
    as_json: _Json = False,
) -> None:
    """Make a key for a tenant and print it, this one time."""
    from salver.state import Database, KeyStore

    lifetime = None if days is None else days * DAY_SECONDS
    with closing(Database(state_url())) as database:
        key, made = KeyStore(database).create(
            tenant, frozenset(scope), lifetime_seconds=lifetime, note=note
        )
    if as_json:
        console.say_json({"key": key, **_facts(made)})
        return
    console.note(f"key {made.id} for {tenant}; it is stored as a hash and cannot be shown again")
    console.say(key)


@keys.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    as_json: _Json = False,
) -> None:
    """List every key that was made: its id, its tenant, and whether it is valid."""
    from salver.state import Database, KeyStore

    with closing(Database(state_url())) as database:
        facts = [_facts(record) for record in KeyStore(database).list(tenant)]
    if as_json:
        console.say_json(facts)
    elif facts:
        console.say(console.table([_HEAD, *(_row(fact) for fact in facts)]))
    else:
        console.note("there are no keys; `salver keys create TENANT` makes one")


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `salver keys list` shows it.")],
    as_json: _Json = False,
) -> None:
    """Revoke a key; gateways that run stop taking it within seconds."""
    from salver.state import Database, KeyStore, split_key

    parts = split_key(key_id)  # whoever pastes the whole key means its id
    with closing(Database(state_url())) as database:
        ended = KeyStore(database).revoke(parts[0] if parts else key_id)
    if as_json:
        console.say_json(_facts(ended))
        return
    console.say(f"key {ended.id} of {ended.tenant} is revoked")


_HEAD = ("id", "tenant", "scopes", "state", "created", "expires", "note")


def _row(fact: dict[str, Any]) -> tuple[str, ...]:
    cells = (fact["id"], fact["tenant"], ",".join(fact["scopes"]), fact["state"])
    return (*cells, fact["created"], fact["expires"] or "never", fact["note"])


def _facts(record: "KeyRecord") -> dict[str, Any]:
    now = datetime.now(UTC).timestamp()
    state = "expired" if record.expired(now) else "valid"
    return {
        "id": record.id,
        "tenant": record.tenant,
        "scopes": sorted(record.scopes),
        "state": "revoked" if record.revoked is not None else state,
        "created": _instant(record.created),
        "expires": _instant(record.expires),
        "revoked": _instant(record.revoked),
        "note": record.note,
    }


def _instant(unix: float | None) -> str | None:
    return None if unix is None else datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds")
