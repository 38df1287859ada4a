"""What of a recording can be replayed, where a request goes, and with which settings the replaying gateway runs.

Limits, keys and the health of upstreams depend on the hour and on what went before: they are taken out of the settings, and what
they had refused is not replayed.
"""

from __future__ import annotations

from proxy_core.replay.exchanges import Exchange
from proxy_core.routing.reasons import Reason
from proxy_core.settings import LimitsSettings, Settings
from proxy_core.wire.dialects import Dialect, Endpoint, UnsafePath, find_endpoint

_WORKFLOW = "agent-workflow"
_NEVER = 10**9
_LIMITS = frozenset(
    {
        Reason.KEY_MISSING,
        Reason.KEY_UNKNOWN,
        Reason.KEY_REVOKED,
        Reason.KEY_NOT_ACCEPTED,
        Reason.UPSTREAM_KEY_MISSING,
        Reason.MODEL_NOT_ALLOWED,
        Reason.RATE_LIMITED,
        Reason.BUDGET_EXHAUSTED,
        Reason.PRICE_UNKNOWN,
        Reason.BUDGET_UNAVAILABLE,
        Reason.UPSTREAM_BUSY,
    }
)


def endpoint_of(exchange: Exchange, upstreams: tuple[tuple[str, Dialect], ...]) -> Endpoint | None:
    """What a recorded request asks for; None where its path belongs to no API."""
    try:
        return find_endpoint(exchange.path, any(name == b"anthropic-version" for name, _ in exchange.headers), upstreams)
    except UnsafePath:
        return None


def path_to(upstream: str, exchange: Exchange, endpoint: Endpoint) -> bytes:
    """The gateway's raw path and query by which a recorded request goes to this upstream."""
    _, separator, query = exchange.target.partition(b"?")
    first, _, rest = exchange.path[1:].partition("/")
    workflow = f"/{first}/{rest.partition('/')[0]}" if first == _WORKFLOW else ""
    return f"{workflow}/{upstream}{endpoint.path}".encode("latin-1") + separator + query


def why_not(exchange: Exchange) -> str:
    """Why a transaction is not replayed; empty where it is."""
    if exchange.lost:
        return exchange.lost
    if exchange.cut and _cut_request(exchange):
        return "the recording has only the beginning of the request"
    facts = exchange.facts
    if facts is None or facts.outcome != "refused" or any(one.action == "deny" for one in facts.verdicts):
        return ""
    status = exchange.client.status if exchange.client is not None else 0
    if any(code in _LIMITS for code in facts.reason.split(",")):
        return "it was refused by keys or limits, which are not replayed"
    if status in (401, 402, 429, 503):
        return "the gateway refused it because of its state then"
    if facts.error.endswith("ended this transaction"):
        return "an operator ended it"
    return ""


def _cut_request(exchange: Exchange) -> bool:
    announced = next((value for name, value in exchange.headers if name == b"content-length"), b"")
    return announced.isdigit() and int(announced) > len(exchange.body) and "body" not in exchange.redacted


def offline_settings(settings: Settings, *, keep: bool = False) -> Settings:
    """The settings for a gateway that only replays; with `keep` its journal stays the configured one, and interceptors run."""
    routing = settings.routing
    calm = routing.model_copy(
        update={
            "retries": routing.retries.model_copy(update={"max_attempts": 1}),
            "breaker": routing.breaker.model_copy(update={"failures": _NEVER, "min_requests": _NEVER}),
            "probes": routing.probes.model_copy(update={"when": "never"}),
        }
    )
    journal = settings.journal
    if not keep:
        journal = journal.model_copy(update={"database_url": None, "capture": "metadata", "on_trouble": "block"})
    return settings.model_copy(
        update={
            "server": settings.server.model_copy(update={"host": "127.0.0.1", "port": 0, "auth": "passthrough", "drain_s": 5.0}),
            "control": settings.control.model_copy(update={"enabled": False}),
            "upstreams": {name: one.model_copy(update={"max_concurrency": None}) for name, one in settings.upstreams.items()},
            "routing": calm,
            "limits": LimitsSettings(),
            "interceptors": settings.interceptors if keep else [],
            "journal": journal,
        }
    )
