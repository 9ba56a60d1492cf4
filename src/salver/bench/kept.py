"""Runs that outlive their command, so that a long search can go on where it was interrupted.

A search asks for runs one by one, and what it asks for next follows from those before. So it needs
no state of its own to be resumed: it is made again from its beginning, and the runs that were made
before are read instead.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from salver.bench.measure import Measurement
from salver.bench.report import as_record, read_records, read_report, write_records
from salver.bench.search import Measure
from salver.errors import InvalidValue
from salver.workload import Mix


def kept(
    measure: Measure,
    directory: Path,
    mix: Mix,
    claims: Mapping[str, str],
    *,
    invalid_too: bool = False,
) -> Measure:
    """The same, but a run that `directory` holds is read from there, and one made is left there.

    `claims` say by name what its runs are of beside the mix: which server, which data. An invalid
    run is not kept: it would be no measurement the next time either. `invalid_too` keeps it, for a
    `measure` that has done what it could.

    Raises:
        InvalidValue: the directory holds runs of another mix or under another claim, or what is no
            run.
    """
    _claim(directory, mix, claims)

    async def run(rate: float, seed: int) -> Measurement:
        place = directory / f"run-{rate:g}-seed-{seed}"
        if (found := _read(place)) is not None:
            return found
        made = await measure(rate, seed)
        if made.report.valid or invalid_too:
            _write(made, place)
        return made

    return run


def _claim(directory: Path, mix: Mix, claims: Mapping[str, str]) -> None:
    """Hold what is asked against what the directory says it holds, and write it there."""
    directory.mkdir(parents=True, exist_ok=True)
    written = mix.model_dump_json(indent=2)
    mixes, told = directory / "mix.json", directory / "claims.json"
    if mixes.exists() and mixes.read_text() != written:
        raise _unusable(mixes, "name another directory: the mix has changed")
    held = _claims_of(told)
    for name, value in claims.items():
        # A claim that is not there is no contradiction: directories that were begun before it was
        # written down are gone on from, and have it from then on.
        if held.get(name, value) != value:
            change = f"{name} was {held[name]} and is {value}"
            raise _unusable(told, f"name another directory: {change}")
    mixes.write_text(written)
    told.write_bytes(msgspec.json.format(msgspec.json.encode(held | dict(claims)), indent=2))


def _claims_of(path: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        raise _unusable(path, f"remove it: {error}") from None


def _unusable(path: Path, fix: str) -> InvalidValue:
    return InvalidValue(f"{path} cannot be gone on from", rule="bench.resume", fix=fix)


def _read(place: Path) -> Measurement | None:
    report = place.with_name(f"{place.name}.json")
    try:
        encoded = report.read_bytes()
        records = read_records(place.with_name(f"{place.name}.jsonl"))
        return Measurement(read_report(encoded), records)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise _unusable(report, f"remove it: {error}") from None


def _write(made: Measurement, place: Path) -> None:
    """The records first: a run is there once its report is."""
    write_records(made.records, place.with_name(f"{place.name}.jsonl"))
    partial = place.with_name(f"{place.name}.partial")
    partial.write_bytes(msgspec.json.encode(as_record(made.report)))
    partial.rename(place.with_name(f"{place.name}.json"))
