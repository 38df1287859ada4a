"""What front ends are told of routing: the rules in force, who gets how much, what was decided lately, and what would be."""

from __future__ import annotations

from msgspec import Struct

from proxy_core.control.param_info import ParamInfo
from proxy_core.routing.health import BreakerState, OperatorState


class UpstreamInfo(Struct, kw_only=True):
    """One upstream: how it stands, and how it fared over the last hour."""

    name: str
    api: str
    """`openai`, `anthropic` or `ollama`."""
    base_url: str
    local: bool
    """Whether what is sent there stays with its user."""
    state: OperatorState
    """What an operator wants: `active`; `drained` takes nothing that another can take, `frozen` nothing at all."""
    breaker: BreakerState
    """`open` while it fails too often to be asked, `half_open` while one request tries it, else `closed`."""
    in_flight: int
    """Transactions that run there now."""
    rps: float
    """Transactions a second that ended there over the last minute."""
    p50_ms: float | None
    """Of the latest transactions, at most 1,000 of the last hour; None where there were none."""
    p99_ms: float | None
    error_rate: float | None
    """Share of the last hour's transactions that the upstream failed, 0 to 1; None where there were none."""
    requests_1h: int
    cost_usd_1h: float
    """Of those whose price is known."""
    last_failure: str = ""
    """Since the start; `status 503`, or a code such as `upstream_unreachable`."""
    ready_in_s: float = 0.0
    """Time until it is tried again; 0 where it is tried now."""
    probe: str = ""
    """What luthien's own latest question found: `ok`, or what was wrong; empty where none was asked."""
    probed_s_ago: float | None = None


class DecisionInfo(Struct, kw_only=True):
    """Where one transaction went, and why."""

    at: float
    """Unix time in seconds."""
    transaction_id: str
    model: str
    """Hostile text: sanitise before showing."""
    upstream: str
    """Empty where it was refused."""
    reasons: tuple[str, ...]
    rule: str
    """The rule that decided: `operator`, `explicit`, `model`, `sensitivity`, `tag`, `cost` or `default`."""


class RoutingInfo(Struct, kw_only=True):
    """Routing as it is now."""

    rules: tuple[ParamInfo, ...]
    """What can be set while the gateway runs, such as `cost.max_prompt_length_for_local`."""
    keywords: int
    """How many keywords keep a request local; the words themselves are in the configuration alone."""
    rules_digest: str
    """Differs where any rule differs."""
    override: str
    """`local` while an operator keeps everything local, else empty."""
    source: str
    """Where the present rules come from: `file`, or `operator NAME at TIME`."""
    reasons: tuple[tuple[str, int], ...]
    """Reason codes of the last hour, the most frequent first."""
    upstreams: tuple[UpstreamInfo, ...]
    """In the order of the configuration."""
    recent: tuple[DecisionInfo, ...]
    """Newest first, at most 200."""


class Moved(Struct, kw_only=True):
    """Recorded transactions that would have gone elsewhere."""

    from_upstream: str
    to_upstream: str
    """Empty where they would have been refused."""
    count: int


class MovedExample(Struct, kw_only=True):
    """One of them."""

    transaction_id: str
    model: str
    """Hostile text: sanitise before showing."""
    from_upstream: str
    to_upstream: str
    reasons: tuple[str, ...]
    """Why it would have gone there."""


class WhatIf(Struct, kw_only=True):
    """What other rules would have made of recorded transactions."""

    total: int
    """Recorded transactions that were decided anew."""
    unread: int
    """Further ones that cannot be: their request is not in the journal, or its path is none of the present upstreams'."""
    moved: int
    moves: tuple[Moved, ...]
    """The most frequent first."""
    cost_before_usd: float
    """What those that would have moved cost, as far as it is known."""
    cost_after_usd: float
    """What the same tokens would have cost there; local upstreams cost nothing."""
    unknown_cost: int
    """Of those that would have moved, how many have no known price on one of the sides; no sum counts them."""
    examples: tuple[MovedExample, ...]
    """The latest that would have moved, at most 20."""
