"""How long a step takes, from what is in it: the values that scheduler, worker and gateway share.

A step's time is modelled as a sum of what it cannot avoid:

    seconds = base + per_token * tokens + per_attended * attended + per_logit_row * logit_rows

`base` is streaming the weights once, `attended` the (query token, key token) pairs of attention.
`engine.latency_model` measures the costs.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepShape:
    """What a step's time depends on. All counts."""

    tokens: int
    attended: int
    logit_rows: int

    @classmethod
    def of_tokens(cls, first: int, count: int, logit_rows: int = 0) -> "StepShape":
        """One sequence's `count` tokens from position `first`; each attends to all up to itself."""
        return cls(count, count * first + count * (count + 1) // 2, logit_rows)

    def __add__(self, other: "StepShape") -> "StepShape":
        return StepShape(
            self.tokens + other.tokens,
            self.attended + other.attended,
            self.logit_rows + other.logit_rows,
        )


EMPTY_STEP = StepShape(0, 0, 0)


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Costs in seconds; none is negative. `error` is the median relative error of predictions."""

    base: float
    per_token: float
    per_attended: float
    per_logit_row: float
    error: float = 0.0

    def predict(self, shape: StepShape) -> float:
        """Seconds that a step of this shape takes."""
        return self.base + self.marginal(shape)

    def marginal(self, shape: StepShape) -> float:
        """Seconds that this much more work adds to a step."""
        return (
            self.per_token * shape.tokens
            + self.per_attended * shape.attended
            + self.per_logit_row * shape.logit_rows
        )

    def scaled(self, factor: float) -> "LatencyModel":
        """Every cost times `factor`."""
        return LatencyModel(
            base=factor * self.base,
            per_token=factor * self.per_token,
            per_attended=factor * self.per_attended,
            per_logit_row=factor * self.per_logit_row,
            error=self.error,
        )


UNMEASURED = LatencyModel(0.0, 0.0, 0.0, 0.0)
"""Promises nothing, so nothing is held back or refused on its word."""
