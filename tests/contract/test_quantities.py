"""What is written and what it stands for determine each other."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from salver.contract.quantities import (
    BYTES,
    SECONDS,
    format_duration,
    format_fraction,
    format_size,
    parse_duration,
    parse_fraction,
    parse_size,
)


@given(st.decimals(Decimal("0.000001"), Decimal(10**6), places=6), st.sampled_from(list(SECONDS)))
def test_a_duration_is_its_number_times_its_unit(number: Decimal, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == float(number * SECONDS[unit])


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_durations_survive_a_round_trip(seconds: float) -> None:
    rounded = round(seconds, 9)
    assert parse_duration(format_duration(rounded)) == rounded


@given(st.integers(1, 10**15 - 1))
def test_sizes_survive_a_round_trip(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10**6))
def test_fractions_survive_a_round_trip(millionths: int) -> None:
    fraction = millionths / 10**6
    assert parse_fraction(format_fraction(fraction)) == fraction


@given(st.text(max_size=12) | st.floats() | st.integers() | st.booleans() | st.none())
def test_anything_else_is_a_fault_and_nothing_worse(written: object) -> None:
    for parse, units in ((parse_duration, SECONDS), (parse_size, BYTES), (parse_fraction, {"%"})):
        try:
            value = parse(written)
        except PydanticCustomError as error:
            fault = (error.type, error.message())
        else:
            assert value >= 0
            assert isinstance(written, str)
            assert any(written.endswith(unit) for unit in units)
            continue
        assert fault[0].startswith("quantity.")
        assert fault[1].startswith("write ")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("30s", 30.0), ("1.5h", 5400.0), ("2m", 120.0), ("250us", 0.00025)],
)
def test_durations_as_people_write_them(written: str, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [("1GiB", 2**30), ("1GB", 10**9), ("1.5KiB", 1536), ("7B", 7), ("2TiB", 2**41)],
)
def test_sizes_as_people_write_them(written: str, size: int) -> None:
    assert parse_size(written) == size


def test_percentages_are_exact() -> None:
    assert parse_fraction("99.9%") == 0.999
    assert parse_fraction("0%") == 0.0
    assert parse_fraction("100%") == 1.0


@pytest.mark.parametrize("written", ["1.0001B", "0GiB", "1 GiB", "1gib", "-1GiB", "1Gi", "", "GiB"])
def test_sizes_that_are_refused(written: str) -> None:
    with pytest.raises(PydanticCustomError, match="write"):
        parse_size(written)


def test_a_bare_number_is_told_to_name_its_unit() -> None:
    with pytest.raises(PydanticCustomError, match="does not say what it counts") as caught:
        parse_duration(500)
    assert "500ms" in caught.value.message()


@pytest.mark.parametrize(
    ("seconds", "written"), [(0.5, "500ms"), (30.0, "30s"), (90.0, "90s"), (3600.0, "1h")]
)
def test_durations_are_shown_in_their_natural_unit(seconds: float, written: str) -> None:
    assert format_duration(seconds) == written
