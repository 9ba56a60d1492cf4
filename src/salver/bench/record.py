"""What came of one arrival. The raw results of a run are these, one a line."""

from msgspec import Struct

from salver.telemetry import Ending, Latencies, tpot_of


class Record(Struct):
    """One arrival's life. Instants are seconds from the start of the schedule.

    `at` is when it was meant to be sent (in a closed loop: when it was), `sent` when the client
    turned to it, `events` when text came, `ended` when all was over. The latencies that count run
    from `at`: time that a request waited because the client was late is time its caller waited.
    `output_tokens` is the server's count; where it gave none, an event counts as a token.
    """

    number: int
    at: float
    flow: str
    tenant: str
    traffic_class: str
    session: str
    turn: int
    input_tokens: int
    max_tokens: int
    sent: float = 0.0
    events: list[float] = []
    ended: float = 0.0
    output_tokens: int = 0
    cached_tokens: int = 0
    counted: bool = False  # by the server
    status: int = 0
    ending: Ending = Ending.FAILED
    problem: str = ""

    @property
    def lag(self) -> float:
        """How late the client was."""
        return self.sent - self.at

    def latencies(self) -> Latencies:
        """As `salver.telemetry.latency` defines them; an event's tokens are taken to come at once."""
        e2e = self.ended - self.at
        if not self.events:
            return Latencies(None, None, e2e, ())
        ttft, tokens = self.events[0] - self.at, self.output_tokens
        gaps = tuple(map(float.__sub__, self.events[1:], self.events))
        return Latencies(ttft, tpot_of(ttft, e2e, tokens), e2e, gaps, tokens)
