"""Law 6, counted where it happens: tokens computed for requests whose deadline had passed."""

from salver.engine.plan import SchedulerOutput


class Overtime:
    """Held against every step, by when it began and when it ended.

    `late_tokens` are those of steps in which a deadline passed: one step of a request, which then
    leaves. `overdue_tokens` are those of steps that began after it. They stay at zero, whatever the
    scheduler does; the count is there to show it.
    """

    def __init__(self) -> None:
        self.late_tokens = 0
        self.overdue_tokens = 0

    def count(self, plan: SchedulerOutput, started: float, ended: float) -> None:
        """Take in one step that was computed."""
        for sequence in plan.sequences:
            if sequence.deadline is None or sequence.deadline > ended:
                continue
            tokens = sequence.end - sequence.start
            if sequence.deadline > started:
                self.late_tokens += tokens
            else:
                self.overdue_tokens += tokens

    def __repr__(self) -> str:
        return f"<Overtime {self.late_tokens} late, {self.overdue_tokens} overdue>"
