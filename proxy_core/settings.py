"""One tree of settings: what can be set, its default, and its bounds.

Sources are merged in `settings_sources`: defaults < YAML < environment < command line, with the origin of each value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Api = Literal["openai", "anthropic", "ollama"]
RESERVED_UPSTREAM_NAMES = frozenset({"v1", "api", "agent-workflow", "health", "livez", "readyz", "metrics", "config"})


class Section(BaseModel):
    """A part of the tree: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ServerSettings(Section):
    host: str = "127.0.0.1"
    """Address that the data plane listens on."""
    port: int = Field(default=4000, ge=0, le=65_535)
    """Port of the data plane; 0 takes a free one."""
    auth: Literal["passthrough", "gateway", "both"] = "passthrough"
    """What clients send: the upstream's own key, which is passed on; a key of this gateway (`luthien keys create`, or the section
    `keys`), in whose place the upstream's `api_key` goes; or either."""
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024)
    """Largest request body, in bytes; more is answered with 413."""
    max_header_bytes: int = Field(default=64 * 1024, ge=1024)
    """Largest block of request line and headers, in bytes; more is answered with 431."""
    header_timeout_s: Seconds = 10.0
    """Time a client has to send its request line and headers."""
    body_timeout_s: Seconds = 30.0
    """Longest pause while a client sends its body."""
    keep_alive_s: Seconds = 75.0
    """Time an idle client connection is kept."""
    drain_s: float = Field(default=30.0, ge=0, le=3_600)
    """Time that running transactions have to finish at shutdown."""
    response_headers: bool = True
    """Whether answers carry `x-luthien-*` headers."""
    audit: bool = True
    """Whether `GET /v1/audit/{request_id}` tells of what came by `POST /v1/chat`; the journal records it in any case."""


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
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{value!r} is not a URL like https://api.openai.com")
        if parts.query or parts.fragment or parts.username or parts.password:
            raise ValueError("give the root alone: no user, query or fragment")
        root = value.rstrip("/")
        for tail in ("/v1", "/api"):
            root = root.removesuffix(tail)
        return root


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
    max_attempts: int = Field(default=2, ge=1, le=10)
    """Times that a request is sent at most, as long as nothing of an answer has gone to the client; 1 for never again."""
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


class SessionSettings(Section):
    ttl_s: Seconds = 3_600.0
    """Inactivity after which a continuation counts as a new session that names the old one."""
    max_sessions: int = Field(default=10_000, ge=10)
    """Sessions remembered at once; the least recently used is forgotten first."""
    min_common_messages: int = Field(default=3, ge=2, le=12)
    """Latest messages that a history whose beginning was dropped has to share with a session to belong to it."""


def async_database_url(url: str) -> str:
    """The URL with the driver that luthien uses: `postgres://`, `postgresql://` and `sqlite:///PATH` are understood."""
    scheme, separator, rest = url.strip().partition("://")
    family = scheme.partition("+")[0].lower()
    if not separator or family not in ("postgres", "postgresql", "sqlite"):
        raise ValueError("give sqlite+aiosqlite:///PATH or postgresql+asyncpg://USER:PASSWORD@HOST/NAME")
    if family == "sqlite":
        return f"sqlite+aiosqlite://{rest}"
    # asyncpg calls libpq's sslmode ssl
    return f"postgresql+asyncpg://{rest.replace('?sslmode=', '?ssl=').replace('&sslmode=', '&ssl=')}"


class JournalSettings(Section):
    database_url: str | None = None
    """`sqlite+aiosqlite:///PATH` or `postgresql+asyncpg://…`; by default `luthien.db` in the data folder."""

    @field_validator("database_url")
    @classmethod
    def _names_a_driver(cls, value: str | None) -> str | None:
        return None if value is None else async_database_url(value)

    capture: Literal["full", "redacted", "metadata"] = "redacted"
    """What is stored of bodies: all but known credentials (`full`), also without anything that looks like a secret
    (`redacted`), or lengths and keyed hashes only (`metadata`)."""
    on_trouble: Literal["spill", "block", "drop"] = "spill"
    """What happens while the store cannot be written: records go to a spool file, requests are refused, or records are
    counted and dropped."""
    sync: Literal["process", "power"] = "process"
    """What a committed record survives: a killed process, or a power cut too (slower)."""
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=0)
    """Largest response body kept, in bytes; of a longer one the beginning is kept and the length recorded."""


class PolicySettings(Section):
    use: str
    """Registry name of the policy, such as `strip_secrets`; `luthien policies list` shows them all."""
    name: str = ""
    """Name in this configuration, where one policy is used more than once; else its registry name."""
    mode: Literal["enforce", "shadow", "off"] = "enforce"
    """Whether it acts, only records what it would have done, or rests."""
    on_error: Literal["deny", "allow", "hold"] | None = None
    """What happens when it fails or takes too long; the policy's own default where nothing is said."""
    deadline_s: Seconds | None = None
    """Time for its own work on one transaction."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Its parameters; `luthien policies list` shows them with their defaults."""

    @field_validator("mode", mode="before")
    @classmethod
    def _understands_off(cls, value: object) -> object:
        return "off" if value is False else value  # what YAML makes of a bare `off`


class Selector(Section):
    """Which transactions a chain is for: all that are given must hold; `*` stands for any text."""

    upstream: str | None = None
    """Name of the upstream that the request is routed to before policies run."""
    key: str | None = None
    """Name of the client's key."""
    agent: str | None = None
    """Agent id."""
    session: str | None = None
    """Session id."""


class ChainSettings(Section):
    match: Selector
    """The transactions that take this chain in place of `policies`; the first chain that matches is taken."""
    policies: list[PolicySettings] = Field(default_factory=list)
    """In order; `send_backend_request` stands at the end where nothing sends."""


class ClientKeySettings(Section):
    key: SecretStr | None = None
    """The key itself, best as `${VARIABLE}`."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Or its SHA-256 in hex."""
    active: bool = True
    """Whether it is accepted."""


class LimitSettings(Section):
    models: list[str] = Field(default_factory=list)
    """Models that may be asked for, `*` for any text; all where the list is empty."""
    rpm: int | None = Field(default=None, ge=1, le=10_000_000)
    """Requests a minute, and at once."""
    tpm: int | None = Field(default=None, ge=1, le=10_000_000_000)
    """Tokens a minute, and at once: an estimate when a request comes, put right by its answer."""
    usd_per_day: float | None = Field(default=None, ge=0, le=1e9)
    """Budget for a day (UTC), in USD."""
    usd_per_month: float | None = Field(default=None, ge=0, le=1e9)
    """Budget for a month (UTC), in USD."""


class LimitsSettings(Section):
    unknown_price: Literal["allow", "deny"] = "allow"
    """What happens to a request that a budget holds for when its price is not known: it passes uncounted, or is refused."""
    assumed_output_tokens: int = Field(default=4_096, ge=0, le=10_000_000)
    """Tokens that an answer is reckoned with beforehand where the request sets no maximum."""
    keys: dict[str, LimitSettings] = Field(default_factory=dict)
    """Limits by name of the client's key; `*` is for each one that is not named."""
    agents: dict[str, LimitSettings] = Field(default_factory=dict)
    """Limits by agent id; `*` is for each one that is not named."""
    upstreams: dict[str, LimitSettings] = Field(default_factory=dict)
    """Limits by upstream; `*` is for each one that is not named."""


Usd = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class Price(Section):
    input: Usd
    """USD for a million tokens of input."""
    output: Usd
    """USD for a million tokens of output; 0 for embeddings."""
    cache_read: Usd | None = None
    """USD for a million tokens read from a cache; by default as other input."""
    cache_write: Usd | None = None
    """USD for a million tokens written into a cache; by default as other input."""


class UpstreamPrices(Section):
    models: dict[str, Price] = Field(default_factory=dict)
    """Prices of models at this upstream, `*` for any text; the first that fits is taken, before `prices.models`."""


class PricesSettings(Section):
    estimate_usage: bool = True
    """Whether tokens are estimated from the text where an upstream tells none; such counts are marked. Else they are unknown."""
    chars_per_token: float = Field(default=4, ge=1, le=100)
    """Characters that an estimate takes for one token."""
    models: dict[str, Price] = Field(default_factory=dict)
    """Prices of your own, by the model that is asked for or that answers, `*` for any text; the first that fits is taken. All
    other models have their provider's list price, and those at upstreams of api `ollama` none."""
    upstreams: dict[str, UpstreamPrices] = Field(default_factory=dict)
    """Prices by upstream."""


class ControlSettings(Section):
    enabled: bool = True
    """Whether the control API is served."""
    host: str = "127.0.0.1"
    """Address that the control API listens on."""
    port: int = Field(default=4001, ge=0, le=65_535)
    """Port of the control API; 0 takes a free one."""
    allowed_hosts: list[str] = Field(default_factory=list)
    """Names besides the loopback's by which a browser or client may call the control API."""
    mcp_write: bool = False
    """Whether MCP clients are offered tools that act: decide holds, set policies, end requests."""


class HoldSettings(Section):
    max_per_key: int = Field(default=20, ge=1, le=10_000)
    """Things of one client key that may wait for a person at once; more are denied at once."""
    max_total: int = Field(default=1_000, ge=1, le=100_000)
    """Things that may wait at once in all."""
    retry_grace_s: Seconds = 30.0
    """How long a hold whose client has left waits for that client's retry before it is withdrawn."""
    heartbeat_s: Seconds = 10.0
    """Pause between signs of life to a client whose stream is held back."""
    on_shutdown: Literal["deny", "approve"] = "deny"
    """What becomes of waiting holds when luthien stops."""


class InterceptorSettings(Section):
    type: str
    """What it does: `printer`, `message_logger`, `event_recorder`, `http_recorder`, `trace`, `live_trace`, or one of an installed
    package."""
    enabled: bool = True
    """Whether it runs."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Its own keys; docs/interceptors.md has them with their defaults."""


class UiSettings(Section):
    theme: str = "luthien"
    """Colour theme; any of Textual's built-in names is understood too."""
    on_close: Literal["stop", "headless"] = "stop"
    """What happens when the terminal goes away: the gateway drains and stops, or goes on without a screen."""
    mouse: bool = True
    """Whether the mouse is used."""
    rows: int = Field(default=50_000, ge=100, le=1_000_000)
    """Transactions kept on screen; older ones are in the journal."""


class LogSettings(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe of luthien's own messages that are kept."""
    format: Literal["text", "json"] = "text"
    """How they are written to the file, and to stderr where there is no screen."""
    file: str | None = None
    """File that they are written to; by default `logs/luthien.log` in the data folder. Its owner alone can read it."""
    max_file_size: int = Field(default=5_000_000, ge=0)
    """Bytes after which a new file is begun; 0 for never."""
    backup_count: int = Field(default=3, ge=0, le=1_000)
    """Older files that are kept, as `luthien.log.1` and so on."""

    @field_validator("level", mode="before")
    @classmethod
    def _understands_other_words(cls, value: object) -> object:
        word = value.strip().upper() if isinstance(value, str) else value
        others = {"WARN": "WARNING", "TRACE": "DEBUG", "CRITICAL": "ERROR", "FATAL": "ERROR"}
        return others.get(word, word) if isinstance(word, str) else word

    @field_validator("format", mode="before")
    @classmethod
    def _understands_detailed(cls, value: object) -> object:
        return "text" if value == "detailed" else value  # another program's word; text is as detailed as that


class Settings(Section):
    """The whole tree."""

    server: ServerSettings = ServerSettings()
    upstreams: dict[str, UpstreamSettings] = Field(default_factory=default_upstreams)
    """Upstreams by name; `/{name}/…` reaches one directly. The first of an API is its default."""
    routing: RoutingSettings = RoutingSettings()
    sessions: SessionSettings = SessionSettings()
    journal: JournalSettings = JournalSettings()
    control: ControlSettings = ControlSettings()
    policies: list[PolicySettings] = Field(default_factory=list)
    """The chain of policies for every transaction, in order; `send_backend_request` stands at the end where nothing sends."""
    chains: list[ChainSettings] = Field(default_factory=list)
    """Other chains for some transactions."""
    policy_paths: list[str] = Field(default_factory=list)
    """Files and folders of policies of your own, relative to the configuration file; by default the folder `policies` beside
    it and the one in the data folder, where they are there. They are code that runs with luthien's rights."""
    holds: HoldSettings = HoldSettings()
    keys: dict[str, ClientKeySettings] = Field(default_factory=dict)
    """Client keys by name: for policies and limits that tell clients apart, and to let clients in where `server.auth` asks for
    keys. `luthien keys create` makes more of them, which stand in the store."""
    limits: LimitsSettings = LimitsSettings()
    prices: PricesSettings = PricesSettings()
    interceptors: list[InterceptorSettings] = Field(default_factory=list)
    """What watches transactions beside the journal: prints, logs, records or sends them on. They never touch the traffic."""
    ui: UiSettings = UiSettings()
    logging: LogSettings = LogSettings()
    data_dir: str | None = None
    """Folder of the store, keys and logs; by default the user's data folder."""

    @field_validator("prices")
    @classmethod
    def _prices_are_of_known_upstreams(cls, value: PricesSettings, info: ValidationInfo) -> PricesSettings:
        from difflib import get_close_matches

        known = info.data.get("upstreams", value.upstreams)
        for name in value.upstreams:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                meant = f"did you mean '{near[0]}'?" if near else f"configured are: {', '.join(known)}"
                raise ValueError(f"prices.upstreams: there is no upstream '{name}'; {meant}")
        return value

    @field_validator("upstreams")
    @classmethod
    def _names_are_path_segments(cls, value: dict[str, UpstreamSettings]) -> dict[str, UpstreamSettings]:
        import re

        for name in value:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,39}", name):
                raise ValueError(f"upstream name {name!r}: use a to z, 0 to 9, - and _ (40 characters at most)")
            if name in RESERVED_UPSTREAM_NAMES:
                raise ValueError(f"upstream name {name!r} is a path of luthien's own; choose another")
        if not value:
            raise ValueError("at least one upstream is needed")
        return value
