"""How long a server has let its callers wait.

Only time counts in which a call awaits bytes: while every caller is busy with what it has, a server
that sends nothing is not silent. Calls that their deadlines end one after the other may each be too
short to tell, so their silent time adds up until a byte comes.
"""

from salver.clock import Clock


class Silence:
    """Of one server, over all of its connections. Seconds on `clock`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._awaiting = 0  # calls
        self._since = clock.now()  # the last byte, or the first call after nobody awaited any
        self._before = 0.0  # since the last byte, of earlier stretches
        self._judged = 0.0  # of all since the last byte

    def begin(self) -> None:
        """A call awaits bytes."""
        if not self._awaiting:
            self._since = self._clock.now()
        self._awaiting += 1

    def end(self) -> None:
        """A call awaits none any more."""
        if self._awaiting == 1:
            self._before = self.in_all
        self._awaiting -= 1

    def heard(self) -> None:
        """A byte came."""
        self._since = self._clock.now()
        self._before = self._judged = 0.0

    @property
    def stretch(self) -> float:
        """Since the last byte, or since somebody awaits one without a pause."""
        return self._clock.now() - self._since if self._awaiting else 0.0

    @property
    def in_all(self) -> float:
        """Since the last byte, without the pauses in which nobody awaited one."""
        return self._before + self.stretch

    def judge(self, in_all: float, anew: float) -> bool:
        """Whether it has lasted for `in_all` seconds, and for `anew` since it was last judged so."""
        silent = self.in_all
        if silent < in_all or silent - self._judged < anew:
            return False
        self._judged = silent
        return True

    def __repr__(self) -> str:
        return f"<Silence {self.in_all:.1f} s, {self._awaiting} awaiting>"
