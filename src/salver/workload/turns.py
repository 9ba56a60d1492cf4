"""How many turns of a session come before the schedule ends, on average."""

from collections.abc import Sequence

import numpy as np

from salver.workload.arrivals import Floats, Rate
from salver.workload.lengths import draw_length
from salver.workload.mix import Sessions

SESSIONS = 10_000


class LaterTurns:
    """Turns after the first, as a sample of sessions has them.

    `conversations` are the turns of a prompt file, of which a session has no more than are written.
    Without `sessions` there are none.
    """

    def __init__(
        self, sessions: Sessions | None, conversations: Sequence[Sequence[str]], seed: int = 0
    ) -> None:
        random = np.random.default_rng(seed)
        offsets = [np.array([])]  # of later turns from their session's first
        if sessions:
            counts = [_later(sessions, conversations, random) for _ in range(SESSIONS)]
            offsets += [np.cumsum(random.exponential(sessions.think, n)) for n in counts]
        self._after: Floats = np.sort(np.concatenate(offsets))

    def within(self, seconds: Floats) -> Floats:
        """How many of a session come within so many seconds of its first turn, for each."""
        return np.searchsorted(self._after, seconds) / SESSIONS

    def of_sessions(self, begun: Rate, duration: float) -> float:
        """How many come in [0, duration) of sessions that begin at this rate."""
        room: Floats = duration - self._after[self._after < duration]
        return float(np.interp(room, begun.times, begun.work).sum()) / SESSIONS


def _later(
    sessions: Sessions, conversations: Sequence[Sequence[str]], random: np.random.Generator
) -> int:
    drawn = draw_length(sessions.turns, random)
    if conversations:
        drawn = min(drawn, len(conversations[int(random.integers(len(conversations)))]))
    return drawn - 1
