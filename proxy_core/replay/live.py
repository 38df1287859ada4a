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
from proxy_core.replay.exchanges import MADE_UP, Exchange
from proxy_core.replay.preparing import endpoint_of, offline_settings, path_to, why_not
from proxy_core.routing.upstreams import Upstreams
from proxy_core.sessions.prices import PriceBook
from proxy_core.settings import Settings, UpstreamSettings
from proxy_core.wire.conversation import Usage
from proxy_core.wire.dialects import READ_OPERATIONS, Dialect, Endpoint
from proxy_core.wire.glance import glance


class Live(Struct, frozen=True):
    """A way to an upstream."""

    settings: Settings
    target: Callable[[Exchange], bytes]
    """The raw path and query of the gateway by which a request gets there."""
    name: str
    """How people call it."""
    upstreams: dict[str, str]
    """Name of the upstream by the API that a request speaks."""


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
        names = {api.value: f"{MADE_UP}{api.value}" for api in Dialect}
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
        return path_to(names[endpoint.dialect.value], exchange, endpoint)

    # Limits, retries and the health of upstreams are as configured: the upstream is a living one.
    again = quiet.model_copy(update={"routing": used.routing, "limits": used.limits, "upstreams": upstreams})
    return Live(again, target, to, names)


async def estimate(exchanges: Sequence[Exchange], way: Live) -> Estimate:
    """What the recorded tokens cost there."""
    prices = PriceBook(time.monotonic, way.settings.prices)
    await prices.load()
    upstreams = Upstreams(way.settings)
    requests, unknown, usd = 0, 0, 0.0
    for exchange in exchanges:
        if why_not(exchange):
            continue
        requests += 1
        endpoint = endpoint_of(exchange, upstreams.names)
        if endpoint is None or endpoint.operation not in READ_OPERATIONS:
            continue
        upstream = upstreams.by_name[way.upstreams[endpoint.dialect.value]]
        usage = _usage(exchange, endpoint)
        cost: float | None = 0.0
        if upstream.api is not Dialect.OLLAMA:
            model = glance(exchange.body).model or exchange.model
            cost = prices.cost_usd(upstream, model, usage) if usage is not None else None
        if cost is None:
            unknown += 1
        else:
            usd += cost
    return Estimate(requests, usd, unknown)


def _usage(exchange: Exchange, endpoint: Endpoint) -> Usage | None:
    facts = exchange.facts
    if facts is not None:
        return Usage(facts.input_tokens, facts.output_tokens, facts.cached_tokens)
    answer = read_answer(endpoint.operation.value, exchange.client) if exchange.client is not None else None
    return answer.usage if answer is not None else None
