"""What a traffic mix says: which flows of requests, arriving how, of which lengths, from whom.

A choice among several is a mapping with one key (`arrivals: {poisson: {rate: 4}}`), so that each
kind has parameters of its own and a faulty one is told at its own line. These types hold what one
section can say alone; rules that hold sections against each other are in `soundness`.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from salver.contract import TrafficClass
from salver.contract.policy import Name, Text
from salver.contract.quantities import Duration, Fraction
from salver.contract.section import Section

Rate = Annotated[float, Field(gt=0, le=1_000_000)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
Factor = Annotated[float, Field(gt=0, le=1000)]
FileName = Annotated[str, Field(min_length=1, max_length=1024)]


class Poisson(Section):
    """Independent arrivals."""

    rate: Rate = Field(description="Mean arrivals per second.", examples=[4])


class Gamma(Section):
    """A renewal process with Gamma gaps, in the words of `vllm bench serve`."""

    rate: Rate = Field(description="Mean arrivals per second.", examples=[4])
    burstiness: Annotated[float, Field(ge=0.01, le=100)] = Field(
        description="The shape of the gaps: 1 is Poisson, below 1 is burstier; their CV is "
        "burstiness ** -0.5.",
        examples=[0.5],
    )


class OnOff(Section):
    """A Poisson process whose rate is switched on and off, for exponential times."""

    rate: Rate = Field(description="Mean arrivals per second while on.", examples=[20])
    on: Duration = Field(description="Mean time on.", examples=["5s"])
    off: Duration = Field(description="Mean time off, when nothing arrives.", examples=["15s"])


class Diurnal(Section):
    """A Poisson process whose rate follows a sine, as days do."""

    rate: Rate = Field(description="Mean arrivals per second over whole periods.", examples=[4])
    swing: Fraction = Field(description="How far the rate rises and falls.", examples=["80%"])
    period: Duration = Field(description="One day of it.", examples=["60s"])


class Ramp(Section):
    """A Poisson process whose rate goes evenly from one value to another over the duration."""

    begin: Rate = Field(description="Arrivals per second at the start.", examples=[1])
    end: Rate = Field(description="Arrivals per second at the end.", examples=[40])


class TraceTimes(Section):
    """The instants of the flow's trace."""

    speed: Factor = Field(default=1.0, description="2 plays it twice as fast.", examples=[0.5])
    skip: Duration | None = Field(
        default=None, description="How much of its beginning to leave out.", examples=["10m"]
    )


class ClosedLoop(Section):
    """Users that each wait for an answer before they ask again.

    No schedule and no measure of overload: a slow server slows its own load. Reports say so.
    """

    users: Annotated[int, Field(ge=1, le=10_000)] = Field(
        description="Requests in flight at most.", examples=[8]
    )
    think: Duration | None = Field(
        default=None, description="Mean pause before the next question.", examples=["1s"]
    )


Process = Poisson | Gamma | OnOff | Diurnal | Ramp | TraceTimes | ClosedLoop


class Arrivals(Section):
    """When requests come: one of these."""

    poisson: Poisson | None = Field(default=None, description="Independent arrivals.")
    gamma: Gamma | None = Field(default=None, description="Gaps of a stated burstiness.")
    on_off: OnOff | None = Field(default=None, description="Bursts between silences.")
    diurnal: Diurnal | None = Field(default=None, description="A rate that follows a sine.")
    ramp: Ramp | None = Field(default=None, description="A rate that rises or falls evenly.")
    trace: TraceTimes | None = Field(default=None, description="The instants of `trace`.")
    closed_loop: ClosedLoop | None = Field(default=None, description="Users who wait for answers.")

    @property
    def process(self) -> "Process":
        """The one that is given."""
        steady = self.poisson or self.gamma or self.on_off
        one = steady or self.diurnal or self.ramp or self.trace or self.closed_loop
        if one is None:
            raise ValueError("loading a mix makes sure that there is one")
        return one


class Lognormal(Section):
    """A lognormal distribution by its own mean and coefficient of variation."""

    mean: Annotated[float, Field(gt=0, le=1_000_000)] = Field(
        description="Its mean, before min and max.", examples=[64]
    )
    cv: Annotated[float, Field(gt=0, le=100)] = Field(
        description="Standard deviation over mean.", examples=[1.0]
    )


class Lengths(Section):
    """A distribution of counts: one of the kinds, then bounded by `min` and `max`."""

    fixed: Tokens | None = Field(default=None, description="Always this many.", examples=[128])
    uniform: tuple[Tokens, Tokens] | None = Field(
        default=None, description="From the first to the second, both included.", examples=[[8, 64]]
    )
    lognormal: Lognormal | None = Field(default=None, description="Many short, few long.")
    empirical: Annotated[tuple[Tokens, ...], Field(min_length=1, max_length=10_000)] | None = Field(
        default=None, description="One of these, each as likely.", examples=[[16, 16, 200]]
    )
    trace: Factor | None = Field(
        default=None, description="That of the trace's request, times this.", examples=[0.125]
    )
    min: Tokens = Field(default=1, description="Shorter ones become this long.", examples=[1])
    max: Tokens | None = Field(default=None, description="Longer ones are cut to this.")


class TraceFormat(StrEnum):
    """What a trace file looks like."""

    AZURE = "azure"
    MOONCAKE = "mooncake"
    SALVER = "salver"


class TraceFile(Section):
    """Recorded traffic: when requests came and how long they were, never what they said."""

    file: FileName = Field(description="The trace.", examples=["traces/azure2023_conv.csv"])
    format: TraceFormat = Field(description="What it looks like.", examples=["azure"])


class PromptFile(Section):
    """A JSONL file of prompts, each line an object."""

    file: FileName = Field(description="The file.", examples=["prompts/spec_bench.jsonl"])
    field: Text = Field(
        default="turns",
        description="The key of a text, or of a list of texts: the turns of one user.",
        examples=["turns"],
    )
    send: Literal["chat", "text"] = Field(
        default="chat",
        description="As chat messages, or as one text to continue.",
        examples=["chat"],
    )
    system: Text | None = Field(
        default=None, description="A system message before each of them.", examples=["Be brief."]
    )
    numbered: bool = Field(
        default=False,
        description="Each conversation opens with a number of its own, so that no server finds it "
        "in a cache of prompts.",
        examples=[True],
    )


class Prompts(Section):
    """What requests say: one of these."""

    tokens: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = Field(
        default=None,
        description="Token ids drawn from [first, last), as many as `input` says.",
        examples=[[1000, 40000]],
    )
    jsonl: PromptFile | None = Field(default=None, description="The prompts of a file, in turn.")


class Prefixes(Section):
    """Beginnings that prompts of token ids share, as system prompts are shared."""

    count: Annotated[int, Field(ge=1, le=100_000)] = Field(
        description="How many there are; each session has one.", examples=[4]
    )
    tokens: Tokens = Field(description="Their length, beside that of `input`.", examples=[256])


class Sessions(Section):
    """Conversations: every arrival opens one, and each turn repeats all that was said before.

    The schedule is fixed beforehand, so that what the model is taken to have said in earlier turns
    is made up, as long as it was allowed to be.
    """

    turns: Lengths = Field(description="How many turns a session has.")
    think: Duration = Field(
        description="Mean time from one turn to the next, exponential.", examples=["10s"]
    )


class TenantShare(Section):
    """One party that sends a share of a flow's sessions."""

    name: Name = Field(description="The tenant; `--keys` has its key.", examples=["search"])
    share: Factor = Field(default=1.0, description="Its share beside the others'.", examples=[3])
    traffic_class: TrafficClass = Field(
        default=TrafficClass.STANDARD,
        alias="class",
        description="The class of its requests.",
        examples=["standard"],
    )


class Abandonment(Section):
    """Callers that hang up."""

    share: Fraction = Field(description="How many of them.", examples=["5%"])
    after: Duration = Field(
        description="Mean time from a request's start until it is abandoned, exponential.",
        examples=["2s"],
    )


class Flow(Section):
    """Requests of one kind. A flow's draws depend on its name and on no other flow."""

    name: Name = Field(description="The flow's name.", examples=["chat"])
    trace: TraceFile | None = Field(default=None, description="Recorded traffic to draw on.")
    arrivals: Arrivals = Field(description="When requests come.")
    prompts: Prompts = Field(description="What they say.")
    input: Lengths | None = Field(default=None, description="Tokens of a prompt.")
    output: Lengths = Field(description="Tokens asked for.")
    prefixes: Prefixes | None = Field(default=None, description="What prompts begin with.")
    sessions: Sessions | None = Field(default=None, description="Conversations of several turns.")
    tenants: Annotated[tuple[TenantShare, ...], Field(max_length=1024)] = Field(
        default=(TenantShare(name="default"),), description="Who sends them."
    )
    timeout: Duration = Field(
        default=60.0,
        description="When a caller gives up; the server is told as Request-Timeout-Ms.",
        examples=["30s"],
        json_schema_extra={"default": "60s"},
    )
    abandoned: Abandonment | None = Field(default=None, description="Callers that hang up.")


class MixSlo(Section):
    """What a request must meet to count as good; each part is optional, not all of them."""

    ttft: Duration | None = Field(
        default=None, description="Intended start to first token, at most.", examples=["1s"]
    )
    tpot: Duration | None = Field(
        default=None, description="Mean gap between its tokens, at most.", examples=["100ms"]
    )
    e2e: Duration | None = Field(
        default=None, description="Intended start to last token, at most.", examples=["20s"]
    )


class Mix(Section):
    """One traffic mix: one file."""

    api_version: Literal["salver/v1"] = Field(
        alias="apiVersion", description="The version of this format.", examples=["salver/v1"]
    )
    kind: Literal["TrafficMix"] = Field(
        description="What the file describes.", examples=["TrafficMix"]
    )
    name: Name = Field(description="The mix's name.", examples=["steady-chat"])
    description: Text | None = Field(default=None, description="What it stands for.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=0, description="Where every draw begins.", examples=[0]
    )
    duration: Duration = Field(description="Requests arrive this long.", examples=["60s"])
    warmup: Duration | None = Field(
        default=None, description="Arrivals of this beginning are sent, not judged."
    )
    cooldown: Duration | None = Field(
        default=None, description="Arrivals of this end are sent, not judged."
    )
    slo: MixSlo = Field(description="What makes a request good.")
    ignore_eos: bool = Field(
        default=True, description="Answers are as long as asked for.", examples=[True]
    )
    flows: Annotated[tuple[Flow, ...], Field(max_length=64)] = Field(
        description="What the traffic is made of."
    )
