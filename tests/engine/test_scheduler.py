"""Examples of what the laws leave open: who goes first, what a finish says, what is shared."""

import pytest

from salver.contract import (
    Cause,
    FinishReason,
    GenerateRequest,
    Outcome,
    SamplingParams,
    Timings,
    TokenChunk,
)
from salver.engine import EngineCore, Limits, ModelRunnerOutput, SchedulerOutput
from salver.errors import BackendError, Refused, TooLarge
from salver.flow import QueueBound
from salver.testing import FakeRunner, LetterDecoder, ManualClock

GREEDY = SamplingParams(max_tokens=4, temperature=0.0)
BLOCK = 4


def engine(
    *,
    num_blocks: int = 64,
    max_running: int = 8,
    max_batch_tokens: int = 64,
    eos: frozenset[int] = frozenset(),
    queued: int = 100,
    clock: ManualClock | None = None,
) -> EngineCore:
    return EngineCore.build(
        FakeRunner(num_blocks, BLOCK, vocab_size=97),
        clock or ManualClock(),
        Limits(max_running, max_batch_tokens, max_context_tokens=200),
        QueueBound(queued, 10_000),
        eos,
        LetterDecoder,
    )


def request(
    name: str,
    prompt: range | tuple[int, ...] = range(10, 20),
    sampling: SamplingParams = GREEDY,
    n: int = 1,
    salt: str = "",
    deadline: float | None = None,
) -> GenerateRequest:
    return GenerateRequest(name, tuple(prompt), sampling, n=n, cache_salt=salt, deadline=deadline)


def run(core: EngineCore) -> list[TokenChunk]:
    chunks = []
    while core.has_work:
        chunks += core.step()
    return chunks


def tokens(chunks: list[TokenChunk], name: str, choice: int = 0) -> list[int]:
    mine = [c for c in chunks if (c.request_id, c.choice) == (name, choice)]
    return [token for chunk in mine for token in chunk.token_ids]


def computed(core: EngineCore) -> int:
    assert isinstance(core.runner, FakeRunner)
    return core.runner.num_computed_tokens


def test_a_long_prompt_is_computed_in_chunks_while_others_decode() -> None:
    core = engine(max_batch_tokens=8)
    core.add(request("short", range(3)))
    core.step()
    core.add(request("long", range(40)))
    chunks = core.step()
    assert [chunk.request_id for chunk in chunks] == ["short"]
    assert core.load().requests_running == 2


def test_the_budget_bounds_every_step() -> None:
    core = engine(max_batch_tokens=8)
    for name in "abc":
        core.add(request(name, range(30)))
    while core.has_work:
        before = computed(core)
        core.step()
        assert computed(core) - before <= 8


def test_choices_share_the_prompt_and_differ_only_by_seed() -> None:
    sampling = SamplingParams(max_tokens=6, temperature=1.0, seed=7)
    core = engine()
    core.add(request("r", range(40), sampling, n=4))
    chunks = run(core)
    outputs = [tuple(tokens(chunks, "r", choice)) for choice in range(4)]
    assert len(set(outputs)) == 4
    # 40 prompt tokens once, the 4 of the last, never shared block for each other choice, and
    # five of the six output tokens of each choice (the last one is never fed back).
    assert computed(core) == 40 + 3 * 4 + 4 * 5
    assert core.load().kv_blocks_owned == 0


def test_greedy_choices_are_equal() -> None:
    core = engine()
    core.add(request("r", n=3))
    chunks = run(core)
    assert tokens(chunks, "r", 0) == tokens(chunks, "r", 1) == tokens(chunks, "r", 2)


def test_a_repeated_prompt_is_a_prefix_hit_in_its_own_salt_only() -> None:
    core = engine()
    core.add(request("first", range(41), salt="red"))
    run(core)
    core.add(request("same", range(41), salt="red"))
    core.add(request("other", range(41), salt="blue"))
    ends = {c.request_id: c.finish for c in run(core) if c.finish}
    assert ends["same"].cached_tokens == 40
    assert ends["other"].cached_tokens == 0


def test_preempted_requests_come_back_and_finish_with_the_same_tokens() -> None:
    core = engine(num_blocks=12)
    sampling = SamplingParams(max_tokens=24, temperature=1.0, seed=3)
    for name, start in (("a", 0), ("b", 20), ("c", 40)):
        core.add(request(name, range(start, start + 12), sampling))
    chunks = run(core)
    assert core.load().preemptions > 0
    runner = core.runner
    assert isinstance(runner, FakeRunner)
    for name, start in (("a", 0), ("b", 20), ("c", 40)):
        alone = runner.alone(range(start, start + 12), sampling, seed=3)
        assert tokens(chunks, name) == alone


def test_a_request_that_could_never_fit_is_refused_with_what_would() -> None:
    core = engine(num_blocks=4)
    with pytest.raises(TooLarge, match="17 tokens, 16 fit"):
        core.add(request("big", range(13)))


def test_the_queue_bound_counts_every_choice() -> None:
    core = engine(queued=3)
    core.add(request("a", n=2))
    with pytest.raises(Refused) as refused:
        core.add(request("b", n=2))
    decision = refused.value.decision
    assert (decision.rule, decision.value, decision.limit) == (
        "admission.max_queued_requests",
        4,
        3,
    )
    assert decision.cause is Cause.CALLER
    assert decision.retry_after


def test_a_request_past_its_deadline_is_not_accepted() -> None:
    core = engine(clock=ManualClock(1.5))
    with pytest.raises(Refused, match=r"0\.500 s before") as refused:
        core.add(request("late", deadline=1.0))
    assert refused.value.decision.cause is Cause.DEADLINE


def test_an_expired_request_keeps_what_it_got_and_is_never_called_cancelled() -> None:
    clock = ManualClock()
    core = engine(clock=clock)
    core.add(request("slow", deadline=1.0))
    core.step()
    clock.advance(1.0)
    (last,) = core.step()
    assert last.finish is not None
    assert last.finish.outcome is Outcome.EXPIRED
    assert last.finish.reason is FinishReason.ABORT
    assert computed(core) == 10
    assert not core.has_work


def test_cancelling_ends_every_choice_and_frees_its_blocks_in_one_step() -> None:
    core = engine()
    core.add(request("r", range(30), n=3))
    core.step()
    core.cancel("r")
    core.cancel("never heard of it")
    outcomes = [chunk.finish.outcome for chunk in core.step() if chunk.finish]
    assert outcomes == [Outcome.CANCELLED] * 3
    assert core.load().kv_blocks_owned == 0


def test_timings_tell_queueing_from_computing() -> None:
    clock = ManualClock()

    class SlowRunner(FakeRunner):
        """Each step takes a second."""

        def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
            clock.advance(1.0)
            return super().execute(plan)

    core = engine(max_running=1, clock=clock)
    core.runner = SlowRunner(64, BLOCK)
    core.add(request("a"))
    core.add(request("b"))
    ends = {c.request_id: c.finish.timings for c in run(core) if c.finish}
    assert ends["a"] == Timings(arrived=0.0, scheduled=0.0, first_token=1.0, ended=4.0)
    assert ends["b"] == Timings(arrived=0.0, scheduled=4.0, first_token=5.0, ended=8.0)


def test_a_row_that_cannot_be_sampled_fails_alone() -> None:
    class BrokenRunner(FakeRunner):
        """The second token of `bad` cannot be computed."""

        def execute(self, plan: SchedulerOutput) -> ModelRunnerOutput:
            output = super().execute(plan)
            lengths = {s.key: len(s.sample.output) for s in plan.sequences if s.sample}
            if lengths.get("bad#0") != 1:
                return output
            sampled = {key: token for key, token in output.sampled.items() if key != "bad#0"}
            error = BackendError("the logits are not finite", rule="sampling.finite_logits")
            return ModelRunnerOutput(sampled, failed={"bad#0": error})

    core = engine()
    core.runner = BrokenRunner(64, BLOCK)
    core.add(request("bad"))
    core.add(request("good"))
    chunks = run(core)
    ends = {c.request_id: c.finish for c in chunks if c.finish}
    assert ends["bad"].outcome is Outcome.FAILED
    assert ends["bad"].rule == "sampling.finite_logits"
    assert ends["good"].outcome is Outcome.FINISHED
    assert len(tokens(chunks, "good")) == 4
    assert core.load().kv_blocks_owned == 0


# -- how generation ends -------------------------------------------------------------------------


def continuation(count: int) -> list[int]:
    return FakeRunner(vocab_size=97).alone(range(10, 20), SamplingParams(count, temperature=0.0))


def finish_of(
    sampling: SamplingParams, eos: frozenset[int] = frozenset()
) -> tuple[list[int], str, FinishReason, str | int | None]:
    core = engine(eos=eos)
    core.add(request("r", sampling=sampling))
    chunks = run(core)
    end = chunks[-1].finish
    assert end is not None
    return tokens(chunks, "r"), "".join(c.text for c in chunks), end.reason, end.matched


def letters(token_ids: list[int]) -> str:
    return "".join(LetterDecoder().push(token) for token in token_ids)


def test_length() -> None:
    expected = continuation(5)
    got = finish_of(SamplingParams(max_tokens=5, temperature=0.0))
    assert got == (expected, letters(expected), FinishReason.LENGTH, None)


def test_end_of_sequence_is_counted_but_not_shown() -> None:
    expected = continuation(3)
    got = finish_of(SamplingParams(max_tokens=9, temperature=0.0), frozenset({expected[2]}))
    assert got == (expected, letters(expected[:2]), FinishReason.STOP, None)


def test_ignore_eos_goes_on() -> None:
    expected = continuation(9)
    sampling = SamplingParams(max_tokens=9, temperature=0.0, ignore_eos=True)
    assert finish_of(sampling, frozenset({expected[2]}))[0] == expected


def test_stop_token_ids_say_which_one_matched() -> None:
    expected = continuation(3)
    sampling = SamplingParams(max_tokens=9, temperature=0.0, stop_token_ids=(expected[2],))
    assert finish_of(sampling)[1:] == (letters(expected[:2]), FinishReason.STOP, expected[2])


def test_a_stop_string_over_several_tokens_is_cut_and_no_token_follows() -> None:
    expected = continuation(8)
    stop = letters(expected[2:5])
    sampling = SamplingParams(max_tokens=8, temperature=0.0, stop=("no such", stop))
    assert finish_of(sampling) == (
        expected[:5],
        letters(expected[:2]),
        FinishReason.STOP,
        stop,
    )


def test_include_stop_keeps_the_stop_string() -> None:
    expected = continuation(8)
    stop = letters(expected[2:5])
    sampling = SamplingParams(max_tokens=8, temperature=0.0, stop=(stop,), include_stop=True)
    assert finish_of(sampling)[1] == letters(expected[:5])


def test_min_tokens_bans_the_end_until_then() -> None:
    eos = continuation(1)[0]
    sampling = SamplingParams(max_tokens=9, temperature=0.0, min_tokens=4)
    got = finish_of(sampling, frozenset({eos}))[0]
    assert eos not in got[:4]


def test_logprobs_come_with_their_tokens_and_prompt_logprobs_once() -> None:
    sampling = SamplingParams(max_tokens=3, temperature=0.0, logprobs=2, prompt_logprobs=1)
    core = engine(max_batch_tokens=8)
    core.add(request("r", range(20), sampling, n=2))
    chunks = run(core)
    with_prompt = [c for c in chunks if c.prompt_logprobs]
    assert [c.choice for c in with_prompt] == [0]
    first, *others = with_prompt[0].prompt_logprobs
    assert first is None
    assert [entry.token_id for entry in others if entry] == list(range(1, 20))
    assert all([entry.token_id for entry in c.logprobs] == list(c.token_ids) for c in chunks)


def test_prompt_logprobs_see_every_position_even_when_the_prompt_is_cached() -> None:
    core = engine()
    core.add(request("warm", range(20)))
    run(core)
    sampling = SamplingParams(max_tokens=1, prompt_logprobs=0)
    core.add(request("r", range(20), sampling))
    chunks = run(core)
    assert len(chunks[0].prompt_logprobs) == 20
    assert chunks[0].finish is not None
    assert chunks[0].finish.cached_tokens == 0
