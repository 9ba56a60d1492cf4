"""Nothing in a contract is silently ignored: every field is kept, or said not to be (law 9)."""

from pathlib import Path

import pytest

from salver.contract import Deployment, declared_only, load_deployment, unavailable
from salver.contract.enforcement import ENFORCED, NOT_YET, NOT_YET_UPSTREAM, enforcement_of
from salver.contract.section import section_in, walk

EXAMPLES = Path(__file__).parents[2] / "examples"
FIELDS = {path: section_in(info.annotation) for path, info in walk(Deployment)}
PLAIN = [path for path, section in FIELDS.items() if section is None]


@pytest.mark.parametrize("path", PLAIN)
def test_every_field_is_in_exactly_one_list(path: str) -> None:
    not_yet = [known for known in NOT_YET if path == known or path.startswith(f"{known}.")]
    assert (path in ENFORCED) + len(not_yet) == 1


def test_the_lists_name_fields_only() -> None:
    assert set(ENFORCED) <= set(PLAIN), "a section may not be enforced wholesale"
    assert set(NOT_YET) <= set(FIELDS)
    assert set(NOT_YET_UPSTREAM) <= set(ENFORCED), "what nobody keeps is in the other list"


def test_every_part_says_one_sentence() -> None:
    sentences = (NOT_YET | NOT_YET_UPSTREAM).values()
    assert all(sentence.endswith(".") for sentence in sentences)


def test_the_full_contract_declares_all_that_is_not_kept(full_text: str) -> None:
    parts = [part.path for part in declared_only(load_deployment(full_text))]
    # Prompts are not logged in any case, so `off` is kept.
    assert parts == [path for path in NOT_YET if path != "telemetry.prompt_logging"]


def test_the_short_contract_is_kept_whole(short_text: str) -> None:
    assert declared_only(load_deployment(short_text)) == ()


@pytest.mark.parametrize(
    ("added", "paths"),
    [
        ("telemetry: {prompt_logging: off, trace_sample: 0%}", []),
        ("telemetry: {prompt_logging: on}", ["telemetry.prompt_logging"]),
        ("tenants: [{name: a}]", []),
        ("tenants: [{name: a}, {name: b, weight: 2}]", []),
        ("slo: {tpot_p95: 1s}", []),
        ("slo: {e2e_p99: 1s}", ["slo.e2e_p99"]),
    ],
)
def test_only_what_is_declared_counts(short_text: str, added: str, paths: list[str]) -> None:
    deployment = load_deployment(f"{short_text}\n{added}\n")
    assert [part.path for part in declared_only(deployment)] == paths


def test_what_our_engine_alone_keeps_is_said_in_front_of_other_servers() -> None:
    text = (EXAMPLES / "upstream-vllm.yaml").read_text()
    assert declared_only(load_deployment(text)) == ()
    text = text.replace("admission: {", "admission: {overload: shed_lowest_class, ")
    text += "slo: {ttft_p95: 1s, tpot_p95: 50ms}\n"
    text += "tenants: [{name: a, weight: 2, class: batch, kv_share: 50%}]\n"
    assert [part.path for part in declared_only(load_deployment(text))] == [
        "tenants.kv_share",
    ]


def test_an_engine_that_this_build_lacks_is_a_fault(full_text: str, short_text: str) -> None:
    (fault,) = unavailable(load_deployment(full_text), native_core=False)
    assert (fault.path, fault.value) == ("release.runtime.engine", "native")
    assert "engine: numpy" in fault.fix
    assert unavailable(load_deployment(full_text), native_core=True) == ()
    assert unavailable(load_deployment(short_text), native_core=False) == ()


def test_enforcement_can_be_asked_for_by_path() -> None:
    assert enforcement_of("release.envelope.memory")[0]
    assert enforcement_of("slo.e2e_p99") == (False, NOT_YET["slo.e2e_p99"])
    assert enforcement_of("release") == (False, "")
