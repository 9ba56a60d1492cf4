"""What both generating endpoints need at hand, and the steps they share."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from salver.clock import Clock
from salver.contract import Backend, Finish, FinishReason, GenerateRequest, SamplingParams
from salver.errors import BackendLost, Refused, UnknownModel
from salver.flow import certain_output, least_own_seconds, unreachable
from salver.gateway.arrival import Arrival
from salver.gateway.calls import Call, Calls
from salver.gateway.chunks import EventFrame
from salver.gateway.errors import Refusals
from salver.gateway.ids import Ids
from salver.gateway.logprobs import LogprobShapes
from salver.gateway.prompts import Admit, Prompts
from salver.gateway.sampling import Asked
from salver.gateway.service import Limits, Served
from salver.gateway.wire.fields import FinishWord
from salver.gateway.wire.sampling import SamplingFields
from salver.models import Tokenizer


@dataclass(frozen=True, slots=True)
class Desk:
    """One service's tools. `wall` gives Unix seconds, for the `created` that clients show people."""

    served: Served
    limits: Limits
    backend: Backend
    tokenizer: Tokenizer
    prompts: Prompts
    calls: Calls
    refusals: Refusals
    shapes: LogprobShapes
    ids: Ids
    clock: Clock
    keeps_messages: bool = False  # for backends that have a tokenizer of their own
    wall: Callable[[], float] = time.time

    def created(self) -> int:
        return int(self.wall())

    def check_model(self, model: str | None) -> None:
        """Raises UnknownModel for any name but the served one."""
        if model is not None and model != self.served.model:
            raise UnknownModel(
                "model: no such model here",
                param="model",
                rule="deployment.model",
                value=model,
                limit=self.served.model,
                fix=f"ask for {self.served.model!r}",
            )

    def check_ready(self, arrival: Arrival) -> None:
        """Raises what the backend says of itself, before any work is spent on a prompt."""
        self.backend.check_ready(arrival.request_id)

    def admit(
        self, arrival: Arrival, *, output: int = 1, choices: int = 1, asked: Asked | None = None
    ) -> Admit:
        """Refuses a prompt of at least so many tokens that leaves no room for what is `asked`, is over
        its tenant's quota by itself, or whose answer cannot be there in time.

        It knows the backend's load after its latest step, of which some may be done by now, and looks
        up no prefix hits: the backend does, and decides again.
        """

        def check(prompt_tokens: int) -> None:
            if asked is not None:
                asked.check(prompt_tokens, self.limits)
            most = asked.tokens if asked else output
            self.calls.check_alone(arrival, prompt_tokens + choices * most)
            load, now = self.backend.load(), self.clock.now()
            refusal = unreachable(
                arrival.request_id,
                queue=load.queue_seconds(
                    arrival.caller.tenant, arrival.traffic_class, arrival.deadline, now
                ),
                own=least_own_seconds(
                    load, prompt=max(1, prompt_tokens), output=output, choices=choices
                ),
                deadline=arrival.deadline,
                now=now,
            )
            if refusal is not None:
                raise Refused(refusal)

        return check

    def call(
        self,
        endpoint: str,
        call_id: str,
        arrival: Arrival,
        work: Sequence[tuple[tuple[int, ...], SamplingParams]],
        n: int,
        messages: bytes = b"",
    ) -> Call:
        """A Call of `n` choices for each (prompt, params); `messages` as JSON, if kept.

        Raises:
            Refused: one of them could not be answered in time.
        """
        for prompt, params in work:
            self.admit(arrival, output=certain_output(params), choices=n)(len(prompt))
        requests = tuple(
            GenerateRequest(
                id=call_id if len(work) == 1 else f"{call_id}-{index}",
                prompt_token_ids=prompt,
                sampling=params,
                n=n,
                tenant=arrival.caller.tenant,
                cache_salt=arrival.caller.cache_salt,
                deadline=arrival.deadline,
                messages=messages,
                traffic_class=arrival.traffic_class,
                arrived=arrival.arrived,
                call=call_id if len(work) > 1 else "",
            )
            for index, (prompt, params) in enumerate(work)
        )
        return Call(endpoint, requests, arrival, call_id)

    def frame(self, kind: str, call: Call, fields: SamplingFields) -> EventFrame:
        """What the events of a call's stream share."""
        options = fields.stream_options
        return EventFrame(
            kind,
            call_id=call.id,
            created=self.created(),
            model=self.served.model,
            release=self.served.release,
            prompt_tokens=call.prompt_tokens,
            include_usage=bool(options and options.include_usage),
            continuous=bool(options and options.continuous_usage_stats),
        )


def finish_word(reason: FinishReason) -> FinishWord:
    """OpenAI's word for the end of a choice that has an answer."""
    match reason:
        case FinishReason.STOP:
            return "stop"
        case FinishReason.LENGTH:
            return "length"
        case FinishReason.ABORT:
            raise BackendLost("the backend gave a choice up", rule="backend.finish_reason")


def ended(finish: Finish | None) -> Finish:
    """The end of a choice, which `Calls.run` has seen to."""
    if finish is None:
        raise BackendLost("the backend left a choice without an end", rule="backend.complete")
    return finish
