"""The limiter beside its gateway: what it keeps of clients that come under ever new names."""

from __future__ import annotations

from typing import Any

import pytest

from proxy_core.limits import limiter as module
from proxy_core.limits.limiter import Asked, Limiter
from proxy_core.routing.upstreams import Upstreams
from proxy_core.sessions.prices import PriceBook
from proxy_core.settings import Settings
from proxy_core.wire.dialects import Operation


async def test_names_that_are_over_are_forgotten_and_those_in_use_are_not_looked_through_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BUCKETS", 8)
    settings = Settings.model_validate(
        {"upstreams": {"near": {"api": "ollama", "base_url": "http://127.0.0.1:1"}}, "limits": {"agents": {"*": {"rpm": 1}}}}
    )
    upstream, now = Upstreams(settings).by_name["near"], [0.0]
    ledger: Any = None  # no budget is set, so nobody asks for it

    def clock() -> float:
        return now[0]

    limiter = Limiter(settings.limits, ledger=ledger, prices=PriceBook(clock), clock=clock)

    async def come(name: str) -> None:
        asked = Asked("", None, name, upstream, "m", Operation.OLLAMA_CHAT, "POST", b"{}")
        await limiter.admit(asked)

    for number in range(40):
        await come(f"agent-{number}")
    assert len(limiter._buckets) == 40, "all are in use"
    assert limiter._sweep_at == 64
    now[0] = 61.0
    for number in range(40, 65):
        await come(f"agent-{number}")
    assert len(limiter._buckets) == 25
    assert limiter._sweep_at == 48
