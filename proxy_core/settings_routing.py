"""Settings of upstreams and of routing: where requests may go, by which rules, and what happens when that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from proxy_core.settings_section import Seconds, Section

if TYPE_CHECKING:
    from urllib.parse import SplitResult

Api = Literal["openai", "anthropic", "ollama"]
RESERVED_UPSTREAM_NAMES = frozenset({"v1", "api", "agent-workflow", "health", "livez", "readyz", "metrics", "config"})


class Timeouts(Section):
    connect_s: Seconds = 5.0
    """Time to reach an upstream, TLS included."""
    first_byte_s: Seconds = 600.0
    """Time from the request being sent to the response headers."""
    idle_s: Seconds = 120.0
    """Longest pause between two pieces of a response body."""
    total_s: Seconds = 600.0
    """Time for the whole transaction with the upstream."""


class UpstreamSettings(Section):
    api: Api
    """The API that the upstream speaks."""
    base_url: str
    """Root that the API's own path (`/v1/…`, `/api/…`) is appended to; a trailing `/v1` or `/api` is understood."""
    api_key: SecretStr | None = None
    """Key used where the client sends none."""
    ca_file: str | None = None
    """PEM file of the authorities to trust instead of the system's."""
    proxy: str | None = None
    """HTTP proxy for this upstream; else `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` of the environment hold."""
    timeouts: Timeouts | None = None
    """Other times for this upstream than `routing.timeouts`."""
    local: bool | None = None
    """Whether what is sent there stays with you; by default an upstream of api `ollama` is local, and no other."""
    models: dict[str, str] = Field(default_factory=dict)
    """Names of models as they are asked for, and as they are sent here; `*` stands for any text."""
    default_model: str | None = None
    """Model for requests that a rule sends here, where `models` has no name for theirs."""
    priority: int | None = Field(default=None, ge=0, le=1_000)
    """Makes it stand in for other upstreams that take the same requests: the lowest number comes first, and the first upstream of
    an API has 0 where it sets none. One without takes only what is meant for it."""
    stands_in_for: list[Api] = Field(default_factory=list)
    """APIs other than its own whose requests it takes where none of their own upstreams can; they are translated."""
    weight: float = Field(default=1, gt=0, le=1_000)
    """Its share of the sessions among those with the same priority; a session stays with one upstream."""
    max_concurrency: int | None = Field(default=None, ge=1, le=100_000)
    """Requests that may run there at once; more wait in a queue."""
    queue: int = Field(default=100, ge=0, le=100_000)
    """Requests that may wait; more are answered with 429."""
    queue_timeout_s: Seconds = 30.0
    """Longest time that a request waits; then it is answered with 429."""
    api_keys: list[SecretStr] = Field(default_factory=list)
    """Further keys beside `api_key`: the next one is taken where one is refused (401) or has reached its limit (429)."""
    probe_path: str | None = Field(default=None, pattern=r"^/[!-~]*$")
    """Path that `routing.probes` ask for with GET; by default `/v1/models`, and of Ollama `/api/version`."""
    allow_private: bool = True
    """Whether its name may lead to an address of this machine or a private network; where a proxy is used, that looks it up."""

    @property
    def is_local(self) -> bool:
        """Whether what is sent there stays with its user."""
        return self.api == "ollama" if self.local is None else self.local

    @field_validator("base_url")
    @classmethod
    def _is_http_root(cls, value: str) -> str:
        from urllib.parse import urlsplit

        parts = urlsplit(value)
        is_clean = value.isprintable() and " " not in value
        if parts.scheme not in ("http", "https") or not parts.hostname or not is_clean or not _has_fit_port(parts):
            raise ValueError(f"{value!r} is not a URL like https://api.openai.com")
        if parts.query or parts.fragment or parts.username or parts.password:
            raise ValueError("give the root alone: no user, query or fragment")
        root = value.rstrip("/")
        for tail in ("/v1", "/api"):
            root = root.removesuffix(tail)
        return root


def _has_fit_port(parts: SplitResult) -> bool:
    """Whether it names a port that there can be, or none."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def default_upstreams() -> dict[str, UpstreamSettings]:
    return {
        "openai": UpstreamSettings(api="openai", base_url="https://api.openai.com"),
        "anthropic": UpstreamSettings(api="anthropic", base_url="https://api.anthropic.com"),
        "ollama": UpstreamSettings(api="ollama", base_url="http://localhost:11434"),
    }


class SensitivitySettings(Section):
    keywords: list[str] = Field(default_factory=list)
    """A request that holds one of these goes to a local upstream, or nowhere; upper and lower case are the same."""
    match: Literal["word", "substring"] = "word"
    """Whether a keyword counts as a word of its own only, or within words too."""
    scope: Literal["conversation", "last_user"] = "conversation"
    """What is looked through: all messages, tool results and the system prompt, or what the user wrote last."""


class CostSettings(Section):
    max_prompt_length_for_local: int | None = Field(default=None, ge=0)
    """Requests in which what the user wrote last has at most so many characters go to a local upstream."""
    max_usd_for_local: float | None = Field(default=None, ge=0)
    """Or those in which it costs at most so much, in USD; counts where a price is given too."""
    input_usd_per_1m_tokens: float | None = Field(default=None, gt=0)
    """Price of a million tokens of input, in USD."""
    chars_per_token: float = Field(default=4, ge=1)
    """Characters that count as one token."""


class RetrySettings(Section):
    max_attempts: int = Field(default=3, ge=1, le=10)
    """Times that a request is sent at most, as long as nothing of an answer has gone to the client; 1 for never again. Three let
    one of another API stand in where two of its own have failed."""
    same_upstream: bool = False
    """Whether an upstream is tried again after a pause where no other can take the request; clients do that on their own."""
    budget: float = Field(default=0.2, ge=0, le=1)
    """Further attempts, as a share of the requests of the last seconds; three are always free."""
    budget_window_s: Seconds = 10.0
    """How many seconds those are."""
    statuses: list[Annotated[int, Field(ge=400, le=599)]] = Field(default_factory=lambda: [429, 500, 502, 503, 504, 529])
    """Statuses after which a request may be sent again."""
    backoff_s: Seconds = 0.5
    """Longest pause before the second attempt at the same upstream; it doubles with each, and chance takes a part of it."""
    max_wait_s: Seconds = 8.0
    """Longest pause; an upstream that asks for more (`retry-after`) is not tried again, the client is told to wait."""
    unsafe: bool = False
    """Whether a POST is sent again too where the upstream may have worked on it: no answer in time, a connection lost, 504."""


class BreakerSettings(Section):
    failures: int = Field(default=5, ge=1, le=1_000)
    """Failures in a row after which an upstream is left alone for a while, where another can take its requests."""
    rate: float = Field(default=0.5, gt=0, le=1)
    """Or this share of the requests of the last seconds."""
    min_requests: int = Field(default=20, ge=1, le=100_000)
    """How many requests there must be for that."""
    window_s: Seconds = 30.0
    """How many seconds those are."""
    pause_s: Seconds = 5.0
    """First pause; then one request tries, and the pause doubles where it fails."""
    max_pause_s: Seconds = 60.0
    """Longest pause."""


class ProbeSettings(Section):
    when: Literal["never", "trouble", "always"] = "trouble"
    """Which upstreams luthien itself asks whether they are there: none, those whose breaker is open, or all."""
    interval_s: Seconds = 10.0
    """Time between two questions to one upstream."""
    timeout_s: Seconds = 3.0
    """Longest time for an answer."""


class RoutingSettings(Section):
    sensitivity: SensitivitySettings = SensitivitySettings()
    cost: CostSettings = CostSettings()
    default_provider: str | None = None
    """Where requests go that no rule sends elsewhere: an upstream's name, `local` or `public`; by default where the path says."""
    policy_file: str | None = None
    """File of Policy Mesh's rules (JSON), from which `sensitivity`, `cost` and `default_provider` are taken; relative to the
    configuration file."""
    on_unsupported: Literal["reject", "drop"] = "reject"
    """What happens where a rule sends a request to an upstream of another API, and something in it cannot be said there: that
    upstream is passed over, or that part is left out and the record names it."""
    models: dict[str, str] = Field(default_factory=dict)
    """Upstream by the model that is asked for; `*` stands for any text. The first that fits is taken."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Upstream by the client's tag, as `team:legal`, or `team` for any value. The first that fits is taken."""
    timeouts: Timeouts = Timeouts()
    """Times for every upstream that sets none of its own."""
    retries: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    probes: ProbeSettings = ProbeSettings()
    max_connections: int = Field(default=1_000, ge=1)
    """Connections to upstreams at once."""
