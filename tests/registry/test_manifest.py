"""A tree's identity does not depend on how its files are listed, and its text has one form."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.errors import IntegrityError
from salver.registry import Digest, Manifest, ManifestEntry

entries = st.lists(
    st.builds(
        ManifestEntry,
        name=st.from_regex(r"[a-z0-9_-][a-zé .0-9]{0,12}", fullmatch=True),
        digest=st.binary(min_size=32, max_size=32).map(lambda b: Digest(b.hex())),
        size=st.integers(0, 1 << 40),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda entry: entry.name,
)


@given(entries, st.randoms())
def test_order_does_not_matter_and_the_text_round_trips(
    listed: list[ManifestEntry], random: Random
) -> None:
    manifest = Manifest.of(listed)
    random.shuffle(listed)
    assert Manifest.of(listed).digest == manifest.digest
    assert Manifest.decode(manifest.encode()) == manifest


@given(entries, st.data())
def test_any_other_text_is_refused(listed: list[ManifestEntry], data: st.DataObject) -> None:
    text = Manifest.of(listed).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.binary(max_size=3)) + text[at + 1 :]
    try:
        manifest = Manifest.decode(changed)
    except IntegrityError:
        return
    assert manifest.encode() == changed


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "a\\b", "a\nb", ".hidden", "a\0"])
def test_names_that_could_climb_or_hide_are_refused(name: str) -> None:
    with pytest.raises(IntegrityError):
        Manifest.of([ManifestEntry(name, Digest("0" * 64), 1)])


def test_a_tree_names_each_file_once_and_holds_at_least_one() -> None:
    entry = ManifestEntry("a", Digest("0" * 64), 1)
    for wrong in ([], [entry, entry]):
        with pytest.raises(IntegrityError):
            Manifest.of(wrong)
