"""Everything Salver raises on purpose, drawn as one tree.

    SalverError                 problem, rule, value, fix: enough to act on at 3 a.m.
    ├── ContractError           the deployment file is wrong; carries every fault at once
    │   └── MixError            a traffic mix, or a trace or prompt file it names, is wrong
    ├── DoesNotFit              the contract is sound but this machine cannot hold it
    ├── IntegrityError          bytes are not what they were declared to be
    │   └── MalformedModel      a checkpoint, tokenizer or chat template that cannot be trusted
    ├── UnsupportedModel        a sound model that asks for something this build does not compute
    ├── FetchError              an artifact could not be fetched from its source
    ├── RequestError            one request cannot be served as asked; the caller must change it
    │   ├── UnsupportedField    a field or option that is not implemented (law 9)
    │   ├── InvalidValue        well-formed, but outside what the field allows
    │   ├── TooLarge            over the envelope
    │   ├── UnknownModel        no such model here
    │   ├── Unauthenticated     no valid key came with it
    │   └── Forbidden           its key is valid, but not for this
    ├── StateUnavailable        the state store cannot be reached, or is not one of this version
    ├── CannotListen            the address is taken, or is not this machine's
    ├── Refused                 one request is refused by a declared rule; carries its Decision
    └── BackendError            the thing that should compute the answer did not
        ├── BackendUnavailable  nothing is ready to take the request
        ├── BackendLost         it died while the request was in flight
        └── MalformedFrame      gateway and worker do not understand each other

The command line maps these to exit codes (`cli/exits.py`), the gateway to HTTP (`gateway/errors.py`).
Any other exception is a bug in Salver and is reported as one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from salver.contract.decision import Decision
    from salver.contract.faults import Fault


class SalverError(Exception):
    """Base of every deliberate error.

    Args:
        problem: what was wrong, as one sentence.
        rule: the rule it broke, as a stable dotted name such as `envelope.max_context_tokens`.
        value: the value that broke it.
        limit: the bound the value was held against, if the rule has one.
        fix: what the reader should do.
    """

    def __init__(
        self,
        problem: str,
        *,
        rule: str = "",
        value: object = None,
        limit: object = None,
        fix: str = "",
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.rule = rule
        self.value = value
        self.limit = limit
        self.fix = fix

    def __str__(self) -> str:
        parts = [self.problem]
        if self.rule:
            parts.append(f"rule: {self.rule}")
        if self.fix:
            parts.append(f"fix: {self.fix}")
        return "; ".join(parts)


class ContractError(SalverError):
    """The deployment file is wrong. `faults` lists everything found, in file order."""

    def __init__(self, problem: str, faults: "Sequence[Fault]" = ()) -> None:
        super().__init__(problem, rule="contract")
        self.faults = tuple(faults)


class MixError(ContractError):
    """A traffic mix is wrong, or a trace or prompt file it names; told like a contract's faults."""


class DoesNotFit(SalverError):
    """The contract asks for more than this machine, or its own envelope, can hold."""


class IntegrityError(SalverError):
    """Bytes are not what they were declared to be."""


class MalformedModel(IntegrityError):
    """A checkpoint, tokenizer or chat template is damaged, hostile or of an unknown kind."""


class UnsupportedModel(SalverError):
    """A sound model that asks for something this build does not compute, which is never ignored."""


class FetchError(SalverError):
    """An artifact could not be fetched from its source."""


class RequestError(SalverError):
    """One request cannot be served as asked. `param` names the offending field, if one does."""

    def __init__(
        self,
        problem: str,
        *,
        param: str | None = None,
        rule: str = "",
        value: object = None,
        limit: object = None,
        fix: str = "",
    ) -> None:
        super().__init__(problem, rule=rule, value=value, limit=limit, fix=fix)
        self.param = param


class UnsupportedField(RequestError):
    """The request uses a field or option that is not implemented here."""


class InvalidValue(RequestError):
    """A field is well-formed but its value is not allowed."""


class TooLarge(RequestError):
    """The request is over the envelope."""


class UnknownModel(RequestError):
    """The request names a model that this deployment does not serve."""


class Unauthenticated(RequestError):
    """No valid key came with the request."""


class Forbidden(RequestError):
    """The request's key is valid, but its scopes or its tenant do not allow this."""


class StateUnavailable(SalverError):
    """The state store cannot be reached, does not answer in time, or is not one of this version."""


class CannotListen(SalverError):
    """The address is taken, or is not this machine's."""


class Refused(SalverError):
    """A declared rule turned a request away: before any of it was computed, or at its deadline."""

    def __init__(self, decision: "Decision") -> None:
        super().__init__(
            decision.reason, rule=decision.rule, value=decision.value, limit=decision.limit
        )
        self.decision = decision


class BackendError(SalverError):
    """The backend did not produce the answer."""


class BackendUnavailable(BackendError):
    """No backend is ready to take the request."""


class BackendLost(BackendError):
    """The backend died while the request was in flight; a part may have been delivered."""


class MalformedFrame(BackendError):
    """The other side of a worker's socket sent something that is not a frame. Closes the connection."""
