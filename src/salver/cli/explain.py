"""`salver explain`: what a rule asks, what a part of a contract means, why a request was refused."""

from dataclasses import asdict
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from salver.cli import console
from salver.cli.home import decisions_path
from salver.errors import InvalidValue

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from salver.contract.rules import Rule
    from salver.state import DecisionRecord

Record = dict[str, Any]


def explain(
    topic: Annotated[
        str,
        typer.Argument(
            help="A rule such as quantity.size, a path such as release.envelope, or the id of a "
            "decision, as an answer's x-salver-decision has it."
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain a rule, a part of a contract or a decision; without TOPIC, list all rules."""
    rules = _rules()
    if not topic:
        _list_rules(as_json=as_json)
        return
    if topic.startswith("dec-"):
        _explain_decision(topic, as_json=as_json)
        return
    records = [asdict(rules[topic])] if topic in rules else []
    records += _field_records(topic)
    if not records:
        raise _unknown(topic, list(rules))
    if as_json:
        console.say_json(records)
        return
    console.say("\n\n".join(map(_text, records)))


def _rules() -> "dict[str, Rule]":
    """Those of contracts, then those of traffic mixes."""
    from salver.contract.rules import RULES
    from salver.workload.rules import MIX_RULES

    return RULES | MIX_RULES


def _list_rules(*, as_json: bool) -> None:
    rules = _rules().values()
    if as_json:
        console.say_json([asdict(rule) for rule in rules])
        return
    console.say(console.table([(rule.name, rule.asks) for rule in rules]))


def _explain_decision(decision_id: str, *, as_json: bool) -> None:
    from salver.state import find_decisions

    path = decisions_path()
    records = [_decision_record(found) for found in find_decisions(path, decision_id)]
    if not records:
        raise InvalidValue(
            "there is no decision with this id in the log",
            rule="explain.decision",
            value=decision_id,
            fix=f"it may be too old, or of another machine; this log is {path}",
        )
    if as_json:
        console.say_json(records)
        return
    console.say("\n\n".join(map(_decision_text, records)))


def _decision_record(found: "DecisionRecord") -> Record:
    from salver.contract import Action

    kept = found.decision.action in (Action.FALL_BACK, Action.USE_AGAIN)  # nothing was exceeded
    verdict, record = "kept" if kept else "broken", asdict(found)
    return {**record.pop("decision"), "verdict": verdict, **record, "at": _instant(found.at)}


def _decision_text(record: Record) -> str:
    rows = [
        ("rule", record["rule"]),
        ("value", f"{record['value']:g}, held against a limit of {record['limit']:g}"),
        ("verdict", record["verdict"]),
        ("action", record["action"]),
        ("reason", record["reason"]),
        ("tenant", record["tenant"] or "(not known yet)"),
        ("request", record["request_id"]),
        ("at", record["at"]),
        ("served by", f"{record['deployment']}, release {record['release']}"),
    ]
    if record["retry_after"] is not None:
        rows.insert(5, ("retry after", f"{record['retry_after']:.1f} s"))
    meanings = [found["means"] for found in _field_records(record["rule"])]
    rows += [("the rule", meaning) for meaning in meanings[:1]]
    return f"{console.bold(record['id'])}\n{console.table(rows)}"


def _instant(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).isoformat(timespec="milliseconds")


def _field_records(path: str) -> list[Record]:
    """The field at a path, and directly beneath it the fields of the section it holds."""
    from salver.contract.deployment import Deployment
    from salver.contract.section import walk

    plain = ".".join(part for part in path.split(".") if not part.isdigit())
    return [
        _field_record(name, info)
        for name, info in walk(Deployment)
        if name == plain or name.rpartition(".")[0] == plain
    ]


def _field_record(path: str, info: "FieldInfo") -> Record:
    from salver.contract.enforcement import enforcement_of

    example = (info.examples or [None])[0]
    enforced, how = enforcement_of(path)
    return {
        "path": path,
        "means": info.description,
        "required": info.is_required(),
        "choices": _choices(info.annotation),
        "example": example,
        "enforced": enforced,
        "enforcement": how,
    }


def _choices(annotation: Any) -> list[str] | None:
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return [choice.value for choice in annotation]
    return list(get_args(annotation)) if get_origin(annotation) is Literal else None


def _text(record: Record) -> str:
    if "asks" in record:
        return f"{console.bold(record['name'])}\n  {record['asks']}\n  {record['why']}"
    rows = [("means", record["means"]), ("required", "yes" if record["required"] else "no")]
    if record["choices"]:
        rows.append(("one of", ", ".join(record["choices"])))
    elif record["example"] is not None:
        rows.append(("example", str(record["example"]).replace("'", "")))
    if record["enforcement"]:
        rows.append(("enforced" if record["enforced"] else "not yet", record["enforcement"]))
    return f"{console.bold(record['path'])}\n{console.table(rows)}"


def _unknown(topic: str, rules: list[str]) -> InvalidValue:
    from salver.contract.deployment import Deployment
    from salver.contract.section import walk

    known = rules + [path for path, _ in walk(Deployment)]
    near = get_close_matches(topic, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return InvalidValue(
        f"{topic!r} is neither a rule nor a part of a contract",
        rule="explain.topic",
        value=topic,
        fix=f"{hint}`salver explain` lists the rules",
    )
