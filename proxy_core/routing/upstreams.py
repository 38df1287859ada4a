"""The configured upstreams, and the choice of one for a request.

A request names an API by its path; only configured upstreams can be reached, whatever a request says.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import force_setattr

from proxy_core.errors import UnknownUpstream
from proxy_core.settings import Settings, Timeouts, UpstreamSettings
from proxy_core.wire.dialects import Dialect, Endpoint


class Upstream(Struct, frozen=True):
    """One upstream, ready to be sent to."""

    name: str
    api: Dialect
    base_url: str
    """Scheme, host, port and path prefix, without a trailing slash."""
    path_prefix: str
    """What stands before the API's own path; often empty."""
    host_header: bytes
    timeouts: Timeouts
    """The one thing of it that changes while traffic runs."""
    api_key: str | None = None
    ca_file: str | None = None
    proxy: str | None = None
    local: bool = False
    """Whether what is sent there stays with its user."""
    models: dict[str, str] = {}
    """Names of models as they are asked for, and as they are sent here."""
    default_model: str | None = None
    more_keys: tuple[str, ...] = ()
    """Keys that take turns with `api_key`."""
    priority: int | None = None
    """Place among upstreams that stand in for each other, lowest first; None where it stands in for none."""
    stands_in_for: tuple[Dialect, ...] = ()
    """APIs other than its own whose requests it takes, translated, where none of their own upstreams can."""
    weight: float = 1.0
    max_concurrency: int | None = None
    queue: int = 0
    queue_timeout_s: float = 0.0
    allow_private: bool = True
    probe_path: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """All its keys."""
        return (self.api_key, *self.more_keys) if self.api_key is not None else ()


class Choice(Struct, frozen=True):
    """Where a request goes, and why."""

    upstream: Upstream
    reason: str
    """Reason codes, comma-separated."""


class Upstreams:
    """All configured upstreams by name; the first of an API is its default."""

    def __init__(self, settings: Settings) -> None:
        self.by_name = {name: _upstream(name, one, settings.routing.timeouts) for name, one in settings.upstreams.items()}
        self.names: tuple[tuple[str, Dialect], ...] = tuple((one.name, one.api) for one in self.by_name.values())
        self._default: dict[Dialect, Upstream] = {}
        for one in self.by_name.values():
            self._default.setdefault(one.api, one)

        self._on_usual_times = [self.by_name[name] for name, one in settings.upstreams.items() if one.timeouts is None]

    def use(self, timeouts: Timeouts) -> None:
        """Give later requests these times at every upstream that sets none of its own."""
        for one in self._on_usual_times:
            force_setattr(one, "timeouts", timeouts)

    def choose(self, endpoint: Endpoint) -> Choice:
        """The upstream for `endpoint`. Raises UnknownUpstream where none speaks its API."""
        if endpoint.upstream is not None:
            return Choice(self.by_name[endpoint.upstream], "explicit_upstream")
        upstream = self._default.get(endpoint.api)
        if upstream is None:
            raise UnknownUpstream(
                f"no upstream of api '{endpoint.api.value}' is configured; add one under 'upstreams' in the configuration"
            )
        return Choice(upstream, "default")

    def usual(self, api: Dialect) -> Upstream | None:
        """The first upstream of an API."""
        return self._default.get(api)


def speaks(api: Dialect, endpoint: Endpoint) -> bool:
    """Whether an upstream of this API takes the request as it is; Ollama serves OpenAI's paths too."""
    return api is endpoint.api or (api is Dialect.OLLAMA and endpoint.dialect is Dialect.OPENAI)


def _upstream(name: str, one: UpstreamSettings, timeouts: Timeouts) -> Upstream:
    parts = urlsplit(one.base_url)
    keys = [key.get_secret_value() for key in (one.api_key, *one.api_keys) if key is not None]
    return Upstream(
        name=name,
        api=Dialect(one.api),
        base_url=one.base_url,
        path_prefix=parts.path,
        host_header=parts.netloc.encode("ascii"),
        timeouts=one.timeouts or timeouts,
        api_key=keys[0] if keys else None,
        more_keys=tuple(keys[1:]),
        ca_file=one.ca_file,
        proxy=one.proxy,
        local=one.is_local,
        models=one.models,
        default_model=one.default_model,
        priority=one.priority,
        stands_in_for=tuple(Dialect(api) for api in one.stands_in_for if api != one.api),
        weight=one.weight,
        max_concurrency=one.max_concurrency,
        queue=one.queue,
        queue_timeout_s=one.queue_timeout_s,
        allow_private=one.allow_private,
        probe_path=one.probe_path,
    )
