"""Recorded requests to a living upstream: where each goes, with which settings, and what it may cost.

A credential that the recording lost is not sent; the upstream's configured key takes its place. An address that is no configured
upstream gets no key at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from proxy_core.errors import ConfigurationError
from proxy_core.replay.comparing import read_answer
from proxy_core.replay.exchanges import Exchange
from proxy_core.replay.replaying import offline_settings, why_not
from proxy_core.routing.upstreams import Upstreams
from proxy_core.sessions.prices import PriceBook
from proxy_core.settings import Settings, UpstreamSettings
from proxy_core.wire.conversation import Usage
from proxy_core.wire.dialects import Dialect, Endpoint, UnsafePath, find_endpoint
from proxy_core.wire.glance import glance

_WORKFLOW = "agent-workflow"


class Live(Struct, frozen=True):
    """A way to an upstream."""

    settings: Settings
    target: Callable[[Exchange], bytes]
    """The raw path and query of the gateway by which a request gets there."""
    name: str
    """How people call it."""


class Estimate(Struct, frozen=True):
    """What a live replay may come to, reckoned from the recorded tokens."""

    requests: int
    usd: float
    unknown: int
    """Requests whose tokens or price nobody knows."""


def live(settings: Settings, to: str, *, keep: bool = False) -> Live:
    """The way to a configured upstream, or to an address. Raises ConfigurationError."""
    upstreams = dict(settings.upstreams)
    if "://" in to:
        names = {api.value: f"replay-to-{api.value}" for api in Dialect}
        try:
            upstreams |= {name: UpstreamSettings.model_validate({"api": api, "base_url": to}) for api, name in names.items()}
        except ValueError as error:
            raise ConfigurationError(f"--to {to}: this is no address like http://localhost:11434") from error
    elif to in upstreams:
        names = {api.value: to for api in Dialect}
    else:
        raise ConfigurationError(f"--to {to}: there is no such upstream; configured are {', '.join(upstreams)}, or give a URL")
    used = settings.model_copy(update={"upstreams": upstreams})
    quiet = offline_settings(used, keep=keep)
    known = Upstreams(used).names

    def target(exchange: Exchange) -> bytes:
        endpoint = endpoint_of(exchange, known)
        if endpoint is None:
            return exchange.target
        _, separator, query = exchange.target.partition(b"?")
        first, _, rest = exchange.path[1:].partition("/")
        workflow = f"/{first}/{rest.partition('/')[0]}" if first == _WORKFLOW else ""
        path = f"{workflow}/{names[endpoint.dialect.value]}{endpoint.path}"
        return path.encode("latin-1") + separator + query

    # Limits, retries and the health of upstreams are as configured: the upstream is a living one.
    again = quiet.model_copy(update={"routing": used.routing, "limits": used.limits, "upstreams": upstreams})
    return Live(again, target, to)


def endpoint_of(exchange: Exchange, upstreams: tuple[tuple[str, Dialect], ...]) -> Endpoint | None:
    """What a recorded request asks for; None where its path belongs to no API."""
    try:
        return find_endpoint(exchange.path, any(name == b"anthropic-version" for name, _ in exchange.headers), upstreams)
    except UnsafePath:
        return None


async def estimate(exchanges: Sequence[Exchange], settings: Settings, to: str) -> Estimate:
    """What the recorded tokens cost at an upstream or address."""
    prices = PriceBook(time.monotonic)
    await prices.load()
    upstreams = Upstreams(settings)
    chosen = upstreams.by_name.get(to)
    base_url, local = (chosen.base_url, chosen.api is Dialect.OLLAMA) if chosen is not None else (to, False)
    requests, unknown, usd = 0, 0, 0.0
    for exchange in exchanges:
        if why_not(exchange):
            continue
        requests += 1
        cost = 0.0 if local else _cost(exchange, upstreams, prices, base_url)
        if cost is None:
            unknown += 1
        else:
            usd += cost
    return Estimate(requests, usd, unknown)


def _cost(exchange: Exchange, upstreams: Upstreams, prices: PriceBook, base_url: str) -> float | None:
    facts = exchange.facts
    if facts is not None:
        usage: Usage | None = Usage(facts.input_tokens, facts.output_tokens, facts.cached_tokens)
    else:
        endpoint = endpoint_of(exchange, upstreams.names)
        answered = exchange.client
        answer = read_answer(endpoint.operation.value, answered) if endpoint is not None and answered is not None else None
        usage = answer.usage if answer is not None else None
    if usage is None or usage.input_tokens is None:
        return None
    return prices.cost_usd(base_url, glance(exchange.body).model or exchange.model, usage)
