"""One tree of settings: what can be set, its default, and its bounds.

Sources are merged in `settings_sources`: defaults < YAML < environment < command line, with the origin of each value.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from proxy_core.settings_routing import (
    RESERVED_UPSTREAM_NAMES,
    Api,
    BreakerSettings,
    ProbeSettings,
    RetrySettings,
    RoutingSettings,
    Timeouts,
    UpstreamSettings,
    default_upstreams,
)
from proxy_core.settings_section import Seconds, Section


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
    """Requests a minute."""
    burst: int | None = Field(default=None, ge=1, le=10_000_000)
    """Requests at once; by default as many as in a minute."""
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
                raise ValueError(f"there is no upstream '{name}'; {meant}")
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


__all__ = [
    "RESERVED_UPSTREAM_NAMES",
    "Api",
    "BreakerSettings",
    "ChainSettings",
    "ClientKeySettings",
    "ControlSettings",
    "HoldSettings",
    "InterceptorSettings",
    "JournalSettings",
    "LimitSettings",
    "LimitsSettings",
    "LogSettings",
    "PolicySettings",
    "Price",
    "PricesSettings",
    "ProbeSettings",
    "RetrySettings",
    "RoutingSettings",
    "Section",
    "Selector",
    "ServerSettings",
    "SessionSettings",
    "Settings",
    "Timeouts",
    "UiSettings",
    "UpstreamPrices",
    "UpstreamSettings",
    "async_database_url",
    "default_upstreams",
]
