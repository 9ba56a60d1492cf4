"""What is charged for tokens."""

from hypothesis import given
from hypothesis import strategies as st

from salver.contract import LatencyModel
from salver.flow import Tariff
from salver.flow.fairness import DEAREST_PAIR

costs = st.floats(0.0, 1.0)
machines = st.builds(LatencyModel, costs, costs, costs, costs)
tariffs = machines.map(Tariff.of_machine)
ROUNDING = 1 + 1e-12


@given(tariffs, st.integers(0, 9000), st.integers(1, 500), st.integers(1, 500), st.booleans())
def test_a_prompt_is_charged_the_same_however_it_is_cut(
    tariff: Tariff, first: int, one: int, other: int, decodes: bool
) -> None:
    whole = tariff.charge(first, one + other, decodes=decodes)
    parts = tariff.charge(first, one, decodes=decodes)
    parts += tariff.charge(first + one, other, decodes=decodes)
    assert whole / ROUNDING <= parts <= whole * ROUNDING


@given(tariffs, st.lists(st.tuples(st.integers(1, 300), st.booleans()), min_size=1, max_size=9))
def test_no_request_is_charged_more_than_the_most(
    tariff: Tariff, chunks: list[tuple[int, bool]]
) -> None:
    charged, first = 0.0, 0
    for count, decodes in chunks:
        charged += tariff.charge(first, count, decodes=decodes)
        first += count
    assert charged <= tariff.of_request(first) * ROUNDING


@given(
    tariffs,
    st.integers(1, 9000),
    st.lists(st.tuples(st.integers(0, 9000), st.integers(1, 300), st.booleans()), max_size=9),
)
def test_no_step_is_charged_more_than_the_most(
    tariff: Tariff, context: int, chunks: list[tuple[int, int, bool]]
) -> None:
    inside = [(first, count, d) for first, count, d in chunks if first + count <= context]
    charged = sum(tariff.charge(first, count, decodes=d) for first, count, d in inside)
    tokens = sum(count for _, count, _ in inside)
    assert charged <= tariff.of_step(tokens, context) * ROUNDING


@given(machines)
def test_attention_is_charged_as_the_machine_has_it_within_reason(model: LatencyModel) -> None:
    found = Tariff.of_machine(model).per_attended
    assert found == (
        min(DEAREST_PAIR, model.per_attended / model.per_token) if model.per_token else 0
    )
