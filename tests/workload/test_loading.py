"""Every rule of a mix is broken once, and told at its place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from salver.errors import ContractError, MixError
from salver.workload import MIX_RULES, load_mix

FLOW = {
    "name": "one",
    "arrivals": {"poisson": {"rate": 1}},
    "prompts": {"tokens": [1, 9]},
    "input": {"fixed": 1},
    "output": {"fixed": 1},
}
LOOP = FLOW | {"name": "two", "arrivals": {"closed_loop": {"users": 1}}}
TWICE = {"uniform": [1, 2], "fixed": 1}
SESSIONS = {"turns": {"fixed": 2}, "think": "1s"}
JSONL = {"jsonl": {"file": "x"}}
PREFIXES = {"count": 1, "tokens": 4}

FAULTY: list[tuple[str, str, dict[str, Any]]] = [
    ("mix.one_of", "flows.0.arrivals", {"arrivals": {}}),
    ("mix.one_of", "flows.0.input", {"input": TWICE}),
    ("mix.one_of", "flows.0.output", {"output": {"max": 4}}),
    ("mix.one_of", "flows.0.prompts", {"prompts": {}, "input": None}),
    ("mix.one_of", "flows.0.sessions.turns", {"sessions": {"turns": {"trace": 1}, "think": "1s"}}),
    ("mix.input", "flows.0.input", {"input": None}),
    ("mix.input", "flows.0.input", {"prompts": JSONL}),
    ("mix.range", "flows.0.output.uniform", {"output": {"uniform": [9, 2]}}),
    ("mix.range", "flows.0.output.max", {"output": {"fixed": 9, "min": 5, "max": 4}}),
    ("mix.range", "flows.0.prompts.tokens", {"prompts": {"tokens": [5, 5]}}),
    ("mix.trace_named", "flows.0.arrivals.trace", {"arrivals": {"trace": {"speed": 1}}}),
    ("mix.trace_named", "flows.0.output.trace", {"output": {"trace": 1}}),
    ("mix.token_prompts", "flows.0.prefixes", {"prompts": JSONL, "input": None, "prefixes": PREFIXES}),
    ("mix.closed_loop_alone", "flows.1.arrivals", {"mix": {"flows": [FLOW, LOOP]}}),
    ("mix.closed_loop_alone", "flows.0.sessions", {"arrivals": LOOP["arrivals"], "sessions": SESSIONS}),
    ("mix.window", "duration", {"mix": {"warmup": "60s", "cooldown": "40s"}}),
    ("mix.objective", "slo", {"mix": {"slo": {}}}),
    ("mix.not_empty", "flows", {"mix": {"flows": []}}),
    ("mix.not_empty", "flows.0.tenants", {"tenants": []}),
    ("mix.flow_names", "flows.1.name", {"mix": {"flows": [FLOW, FLOW]}}),
    ("mix.tenant_names", "flows.0.tenants.1.name", {"tenants": [{"name": "a"}, {"name": "a"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "change"), FAULTY)
def test_a_broken_rule_is_told_at_its_place(
    written: Callable[..., str], rule: str, path: str, change: dict[str, Any]
) -> None:
    with pytest.raises(MixError) as caught:
        load_mix(written(**change))
    assert [(fault.rule, fault.path) for fault in caught.value.faults] == [(rule, path)]
    assert all(fault.fix and fault.line for fault in caught.value.faults)


def test_every_rule_of_the_mix_itself_is_broken_above() -> None:
    files = {rule for rule in MIX_RULES if rule.startswith(("trace.", "prompts."))}
    files |= {"mix.file", "mix.trace_reaches"}  # test_traces, test_prompts
    assert {rule for rule, *_ in FAULTY} | files == set(MIX_RULES)


def test_faults_of_all_kinds_come_at_once_and_in_file_order() -> None:
    text = """apiVersion: salver/v1
kind: TrafficMix
name: faulty
duration: 100
slo: {}
flows:
  - name: one
    arrivals: {poisson: {rate: -1}}
    prompts: {tokens: [9, 2]}
    input: {fixed: 8}
    output: {fixed: 4}
    tenant: me
"""
    with pytest.raises(MixError) as caught:
        load_mix(text)
    assert [(fault.line, fault.rule) for fault in caught.value.faults] == [
        (4, "quantity.duration"),
        (5, "mix.objective"),
        (8, "schema.range"),
        (9, "mix.range"),
        (12, "schema.unknown_key"),
    ]
    assert caught.value.faults[-1].fix == "did you mean `tenants`?"


def test_a_mix_that_cannot_be_read_is_a_mix_s_error(tmp_path: Path) -> None:
    with pytest.raises(MixError, match="traffic mix"):
        load_mix(tmp_path / "none.yaml")
    assert issubclass(MixError, ContractError)


def test_a_contract_is_not_a_mix() -> None:
    with pytest.raises(MixError) as caught:
        load_mix(Path(__file__).parents[2] / "examples" / "smollm2.yaml")
    assert "schema.choice" in {fault.rule for fault in caught.value.faults}


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "benchmarks" / "mixes").glob("*.yaml")), ids=str
)
def test_the_benchmarks_mixes_load(path: Path) -> None:
    assert load_mix(path).name == path.stem
