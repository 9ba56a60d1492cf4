"""Where an upstream is, and how it is asked."""

from dataclasses import dataclass, field

from salver.contract import PromptForm

DEFAULT_TOKENS_IN_FLIGHT = 65536  # where neither the contract nor its metrics say


@dataclass(frozen=True, slots=True)
class Address:
    """One OpenAI-compatible server. `url` ends before `/completions`; `bearer` is its key."""

    name: str
    url: str
    model: str
    form: PromptForm = PromptForm.TOKENS
    bearer: str = field(default="", repr=False)
    max_tokens_in_flight: int | None = None  # None: learned

    @property
    def metrics_url(self) -> str:
        """Prometheus metrics, beside the API."""
        return self.url.rstrip("/").removesuffix("/v1").removesuffix("/v3") + "/metrics"

    @property
    def completions_url(self) -> str:
        """Where the prompts of its form go."""
        tail = "completions" if self.form is PromptForm.TOKENS else "chat/completions"
        return f"{self.url.rstrip('/')}/{tail}"

    @property
    def headers(self) -> dict[str, str]:
        """What every call carries."""
        fixed = {"content-type": "application/json", "accept-encoding": "identity"}
        return fixed | ({"authorization": f"Bearer {self.bearer}"} if self.bearer else {})
