"""The LatencyModel kept true while serving: every step is a measurement.

Traffic is monotonous: a thousand decodes of one batch size say nothing of a prompt's cost, and a fit
over the latest steps alone would forget it. So measurements are kept by kind of step, a kind being
an octave of tokens and an octave of attended pairs. Each kind holds its latest few and speaks through
their median, which a stolen core or a page fault cannot move; old measurements leave their kind as
new ones come, and the kind not seen for longest leaves altogether. The proportions of the costs that
were calibrated before serving stay, as one faint measurement per shape at the speed seen now, so that
no cost is ever unknown.

The rejected alternative, recursive least squares with forgetting, has no place for a median, and its
covariance blows up in the directions that traffic does not excite.
"""

from collections import OrderedDict, deque
from statistics import median

from salver.contract import LatencyModel, StepShape
from salver.contract.latency import UNMEASURED
from salver.engine.latency_model import Measured, fit

LATEST = 8  # measurements that a kind holds
MAX_KINDS = 64
REFIT_STEPS = 64  # a fit takes half a millisecond,
REFIT_SECONDS = 0.5  # so that after long steps it costs nothing, and they should not wait for it
RECENT_STEPS = 64  # whose errors are the model's error
TICK = 1e-9  # seconds; what is shorter is a clock that stands still

_CALIBRATED = (
    StepShape.of_tokens(128, 1, 1),
    StepShape(tokens=32, attended=32 * 256, logit_rows=32),
    StepShape.of_tokens(0, 256, 1),
    StepShape.of_tokens(2048, 64, 1),
)

Kind = tuple[int, int]


class StepTelemetry:
    """Holds predictions against measured steps, and refits the model.

    `model` is the latest; it stays `UNMEASURED` where nothing was calibrated. The three sums are in
    seconds over all steps: what they took, what was predicted, and the absolute differences.
    """

    def __init__(self, calibrated: LatencyModel = UNMEASURED) -> None:
        self.model = calibrated
        self.seconds = self.predicted_seconds = self.error_seconds = 0.0
        self._calibrated = calibrated
        self._kinds: OrderedDict[Kind, deque[Measured]] = OrderedDict()
        self._errors: deque[float] = deque(maxlen=RECENT_STEPS)
        self._steps = 0
        self._since_fit = 0.0  # seconds of steps

    def observe(self, shape: StepShape, seconds: float) -> None:
        """Take in one step that was computed."""
        predicted = self.model.predict(shape)
        self.seconds += seconds
        self.predicted_seconds += predicted
        self.error_seconds += abs(predicted - seconds)
        if seconds < TICK or self._calibrated.predict(shape) <= 0:  # there is nothing to refine
            return
        self._errors.append(abs(predicted / seconds - 1))
        self._keep(shape, seconds)
        self._steps += 1
        self._since_fit += seconds
        if self._steps % REFIT_STEPS == 0 or self._since_fit >= REFIT_SECONDS:
            self.model, self._since_fit = self._refit(), 0.0

    def _keep(self, shape: StepShape, seconds: float) -> None:
        kind = shape.tokens.bit_length(), shape.attended.bit_length()
        self._kinds.setdefault(kind, deque(maxlen=LATEST)).append((shape, seconds))
        self._kinds.move_to_end(kind)
        if len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)

    def _refit(self) -> LatencyModel:
        told = [self._median(latest) for latest in self._kinds.values()]
        weights = [len(latest) for latest in self._kinds.values()]
        speed = median(seconds / self._calibrated.predict(shape) for shape, seconds in told)
        faint = [(shape, speed * self._calibrated.predict(shape)) for shape in _CALIBRATED]
        model = fit(faint + told, [1] * len(faint) + weights)
        costs = model.base, model.per_token, model.per_attended, model.per_logit_row
        return LatencyModel(*costs, error=median(self._errors))

    def _median(self, latest: deque[Measured]) -> Measured:
        """The measurement whose ratio to what was calibrated is the median one."""
        ranked = sorted(latest, key=lambda each: each[1] / self._calibrated.predict(each[0]))
        return ranked[len(ranked) // 2]

    def __repr__(self) -> str:
        return f"<StepTelemetry {self._steps} steps of {len(self._kinds)} kinds, {self.model}>"
