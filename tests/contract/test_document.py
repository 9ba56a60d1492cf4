"""The reader of files: strict, bounded, and never more than a named fault away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.contract.document import MAX_BYTES, Unreadable, read_document


def rules_in(source: bytes) -> list[str]:
    try:
        return [fault.rule for _, fault in read_document(source).faults]
    except Unreadable as unreadable:
        return [unreadable.fault.rule]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_unreadable(source: bytes) -> None:
    assert all(rule.startswith("yaml.") for rule in rules_in(source))


@given(st.text("{}[]:,-?!&*#|>'\"%@ \n\tab1~.\\", max_size=80))
def test_any_yaml_like_text_is_a_document_or_unreadable(text: str) -> None:
    assert all(rule.startswith("yaml.") for rule in rules_in(text.encode()))


def test_the_core_schema_of_yaml_1_2() -> None:
    source = b"{a: off, b: yes, c: 0o7, d: 12, e: 1.5, f: true, g: '12', h: 2001-01-01, i: 1e3}"
    assert read_document(source).data == {
        "a": "off",
        "b": "yes",
        "c": "0o7",
        "d": 12,
        "e": 1.5,
        "f": True,
        "g": "12",
        "h": "2001-01-01",
        "i": 1000.0,
    }


def test_an_old_yaml_directive_does_not_turn_off_into_false() -> None:
    assert read_document(b"%YAML 1.1\n---\na: off\n").data == {"a": "off"}


@pytest.mark.parametrize(
    ("source", "rules"),
    [
        (b"a: 1\na: 2", ["yaml.duplicate_key"]),
        (b"a: {b: 1, b: 2, b: 3}", ["yaml.duplicate_key", "yaml.duplicate_key"]),
        (b"a: &x 1\nb: *x", ["yaml.alias", "yaml.alias"]),
        (b"a: !!python/object:os.system rm", ["yaml.alias"]),
        (b"a:\nb: ~\nc: null", ["yaml.empty", "yaml.empty", "yaml.empty"]),
        (b'a: "\\ud800"', ["yaml.encoding"]),
        (b"\xff\xfe", ["yaml.encoding"]),
        (b"? [a]\n: b", ["yaml.key"]),
        (b"", ["yaml.document"]),
        (b"--- {a: 1}\n--- {a: 1}", ["yaml.document"]),
        (b"a: [1", ["yaml.syntax"]),
        (b"a:\tb:\tc", ["yaml.syntax"]),
        (b"\x00", ["yaml.syntax"]),
        (b"%YAML 1.x\n--- a", ["yaml.syntax"]),
        (b'a: "\\UFFFFFFFF"', ["yaml.syntax"]),
        (b"[" * 17, ["yaml.depth"]),
        (b"a: " + b"x" * MAX_BYTES, ["yaml.size"]),
    ],
)
def test_what_is_refused(source: bytes, rules: list[str]) -> None:
    assert rules_in(source) == rules


@pytest.mark.timeout(30)
@pytest.mark.parametrize("unit", [b"[", b"{", b"- ", b"? ", b"&a [*a,", b"'", b"!", b"\n", b"|\n"])
def test_hostile_repetition_ends_soon(unit: bytes) -> None:
    source = unit * (MAX_BYTES // len(unit))
    assert all(rule.startswith("yaml.") for rule in rules_in(source))


def test_the_first_of_two_equal_keys_is_kept_and_both_are_read() -> None:
    document = read_document(b"a: 1\nb: 2\na: {c: , c: 3}\n")
    assert document.data == {"a": 1, "b": 2}
    assert document.written["a",].text == "1"
    assert [fault.rule for _, fault in document.faults] == [
        "yaml.empty",
        "yaml.duplicate_key",
        "yaml.duplicate_key",
    ]
    assert document.faults[-1][1].line == 3


def test_values_are_remembered_as_written_and_where() -> None:
    document = read_document(b"a:\n  - 0x10\n  - 1.50\n")
    assert document.written["a", 1].text == "1.50"
    assert document.place(("a", 1)) == (3, 5)
    assert document.place(("a", 7, "nowhere")) == (1, 1)


def test_what_is_shown_cannot_drive_a_terminal() -> None:
    document = read_document(b'a: "\\e[2Jgone"')
    assert document.written["a",].text == "\\x1b[2Jgone"
