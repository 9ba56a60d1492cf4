"""Law 8 for what is computed from artifacts: what is read was verified, or is computed again."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from salver.registry import ArtifactStore, Digest, derived_file
from salver.registry.derived import Derived, derived_entries

SOURCE = Digest("a" * 64)
OTHER = Digest("b" * 64)
TRUTH = (b"weights" * 1500, b"scale", bytes(range(256)) * 40)


@dataclass
class Memory:
    """A run: a caller's own bytes."""

    name: str
    data: memoryview
    type: str = "uint8"


def memory(contents: Sequence[bytes] | None = None) -> list[Memory]:
    """Runs with these contents, or zeros to be filled."""
    filled = contents or [bytes(len(each)) for each in TRUTH]
    return [Memory(f"run{n}", memoryview(bytearray(each))) for n, each in enumerate(filled)]


def contents(runs: Sequence[Memory]) -> tuple[bytes, ...]:
    return tuple(bytes(run.data) for run in runs)


class Said(list[str]):
    def __call__(self, sentence: str) -> None:
        self.append(sentence)


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived_file, "PIECE_BYTES", 1000)


@pytest.fixture
def root(store: ArtifactStore) -> Path:
    return store.root


def entry(
    root: Path,
    said: Said | None = None,
    *,
    source: Digest = SOURCE,
    form: str = "layout 1",
    patience: float = 5.0,
) -> Derived:
    said = Said() if said is None else said
    return Derived(root, source, "packed", form, threads=2, say=said, patience=patience)


def use(found: Derived, truth: Sequence[bytes] = TRUTH) -> bool:
    """Do what a worker does; whether the entry was read. What is then served is the truth."""
    runs = memory()
    if found.fill(runs):
        assert contents(runs) == tuple(truth)
        return True
    found.keep(memory(truth))
    return False


class Entries(RuleBasedStateMachine):
    """`sound`: the entry was written and not touched since. `form`: what it was written in.

    A bit may flip where it matters to nobody, so an entry that is not sound may be read; what is
    read is the truth all the same, which `use` sees to.
    """

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="salver-derived-"))
        ArtifactStore(self.root)
        self.sound = False
        self.form = ""
        self.path = entry(self.root).path

    @rule(form=st.sampled_from(["layout 1", "layout 2"]))
    def start(self, form: str) -> None:
        read = use(entry(self.root, form=form))
        assert read or not (self.sound and form == self.form)
        assert not read or form == self.form
        self.sound, self.form = True, form

    @precondition(lambda self: self.path.exists())
    @rule(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
    def flip_a_bit(self, at: float, bit: int) -> None:
        data = bytearray(self.path.read_bytes())
        if data:
            data[int(at * len(data))] ^= 1 << bit
        self.overwrite(bytes(data))
        self.sound = False

    @precondition(lambda self: self.path.exists())
    @rule(share=st.floats(0, 1, exclude_max=True))
    def cut_it_off(self, share: float) -> None:
        data = self.path.read_bytes()
        self.overwrite(data[: int(share * len(data))])
        self.sound = False

    @rule()
    def remove(self) -> None:
        for each in derived_entries(self.root):
            each.remove()
        self.sound = False

    @rule(garbage=st.binary(max_size=200))
    def die_while_writing(self, garbage: bytes) -> None:
        partial = self.root / "partial" / f"derived-{SOURCE.hex}-packed"
        partial.write_bytes(garbage)
        partial.chmod(0o444)

    @rule()
    def put_another_artifacts_entry_there(self) -> None:
        use(entry(self.root, source=OTHER), [b"x" * len(each) for each in TRUTH])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.overwrite(entry(self.root, source=OTHER).path.read_bytes())
        self.sound = False

    def overwrite(self, data: bytes) -> None:
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(data)

    @invariant()
    def partial_and_names_are_ours(self) -> None:
        assert {each.label for each in derived_entries(self.root)} <= {"packed"}

    def teardown(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


Entries.TestCase.settings = settings(max_examples=40, stateful_step_count=10)
TestEntries = Entries.TestCase


def test_a_flipped_bit_is_said_and_kept_for_a_person_to_look_at(root: Path) -> None:
    use(entry(root))
    path, said = entry(root).path, Said()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    assert not use(entry(root, said))
    assert "damaged" in said[0]
    assert "digest" in said[0]
    assert (root / "quarantine" / f"derived-{SOURCE.hex}-packed").read_bytes() == data
    assert use(entry(root))


def test_an_entry_of_another_layout_is_replaced_and_said_so_once(root: Path) -> None:
    use(entry(root, form="layout 1"))
    said = Said()
    assert not use(entry(root, said, form="layout 2"))
    assert said == [f"{entry(root).path} is computed again: it is layout 1, not layout 2"]
    assert use(entry(root, form="layout 2"))


def test_an_entry_cannot_be_written_to(root: Path) -> None:
    use(entry(root))
    assert entry(root).path.stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("where", ["derived", "locks"])
def test_a_store_that_cannot_be_written_to_costs_only_the_keeping(root: Path, where: str) -> None:
    """A file where a directory should be: it also stops root, whom permissions do not."""
    shutil.rmtree(root / where, ignore_errors=True)
    (root / where).write_text("")
    said = Said()
    assert not use(entry(root, said))
    assert not use(entry(root, said))
    assert any("kept" in sentence for sentence in said)
    assert not list((root / "partial").iterdir())


def test_a_full_disk_costs_only_the_keeping(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    said = Said()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert not use(entry(root, said))
    assert said == [f"{entry(root).path} cannot be kept: No space left on device"]
    assert not list((root / "partial").iterdir())
    assert not use(entry(root))
    assert use(entry(root))


def test_whoever_waits_too_long_computes_for_itself_and_writes_nothing(root: Path) -> None:
    slow, said = entry(root), Said()
    assert not slow.fill(memory())
    assert not use(entry(root, said, patience=0.1))
    assert any("held the lock" in sentence for sentence in said)
    assert not list(derived_entries(root))
    slow.keep(memory(TRUTH))
    assert use(entry(root))


def test_what_was_read_does_not_change_with_the_file(root: Path) -> None:
    use(entry(root))
    runs, found = memory(), entry(root)
    assert found.fill(runs)
    found.path.chmod(0o600)
    found.path.write_bytes(b"")
    found.path.unlink()
    assert contents(runs) == TRUTH


def test_entries_are_listed_and_removed(root: Path) -> None:
    assert not list(derived_entries(root))
    use(entry(root))
    use(entry(root, source=OTHER))
    listed = list(derived_entries(root))
    assert [(each.source, each.label) for each in listed] == [(SOURCE, "packed"), (OTHER, "packed")]
    assert listed[0].size > sum(map(len, TRUTH))
    listed[0].remove()
    listed[0].remove()
    assert [each.source for each in derived_entries(root)] == [OTHER]


COMPUTE = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from salver.registry import Digest
from salver.registry.derived import Derived
entry = Derived(Path(sys.argv[1]), Digest("a" * 64), "packed", "layout 1", threads=1, say=print)
runs = [SimpleNamespace(name="run", type="uint8", data=memoryview(bytearray(100_000)))]
found = entry.fill(runs)
if not found:
    time.sleep(0.5)
    runs[0].data[:] = b"7" * 100_000
    entry.keep(runs)
assert bytes(runs[0].data) == b"7" * 100_000
print(found)
"""


@pytest.fixture
def processes(root: Path) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-c", COMPUTE, str(root)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_processes_that_need_one_entry_compute_it_once(
    processes: list[subprocess.Popen[str]],
) -> None:
    answers = [process.communicate(timeout=60)[0].split()[-1] for process in processes]
    assert sorted(answers) == ["False", "True", "True"]
