"""What a chain of policies adds to a request and to a stream's event: `python -m benchmarks.policy_cost [--json]`.

The real gateway is called in this process, between an upstream and a journal that answer at once, with chains of different
length side by side; each figure is the best of several rounds, since noise only adds. Targets: ten policies that pass
everything add at most 100 µs to a JSON request and 5 µs to an event; a policy that is off adds nothing that can be measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.mock_upstream import openai_event
from proxy_core.control.feed import Feed
from proxy_core.control.holds import HoldQueue
from proxy_core.gateway import Gateway
from proxy_core.ids import new_session_id, new_ulid
from proxy_core.interceptors.metrics import GatewayMetrics
from proxy_core.limits.ledgers import LocalLedger
from proxy_core.limits.limiter import Limiter
from proxy_core.policies.chain import Chains, build_chains
from proxy_core.policies.stats import PolicyStats
from proxy_core.policy_services import PolicyServices
from proxy_core.routing.router import Router
from proxy_core.routing.upstreams import Upstreams
from proxy_core.running import Running
from proxy_core.sessions.detector import SessionDetector
from proxy_core.sessions.prices import PriceBook
from proxy_core.settings import Settings

EVENTS = 200
ROUNDS = 7
CALLS = 400
STREAMS = 30
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello there. " * 20}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 40, "total_tokens": 52},
    }
).encode()
CHUNKS = [event for step in range(EVENTS + 2) if (event := openai_event(step, EVENTS)) is not None]


class _Response:
    """An upstream's answer that is there already."""

    status = 200
    connected_at = 0.0

    def __init__(self, *, stream: bool) -> None:
        kind = b"text/event-stream" if stream else b"application/json"
        self.headers = [(b"content-type", kind)]
        if not stream:
            self.headers.append((b"content-length", str(len(ANSWER)).encode()))
        self._left = list(CHUNKS) if stream else [ANSWER]
        self.waiting = True

    @property
    def ended(self) -> bool:
        return not self._left

    async def read(self) -> bytes:
        return self._left.pop(0) if self._left else b""

    async def pump(self, sink: Callable[[bytes], bool]) -> None:
        while self._left:
            if not sink(self._left.pop(0)):
                return

    async def ends_within(self, seconds: float) -> bool:
        return True

    def close(self) -> None:
        return


class _Transport:
    async def send(self, *given: Any) -> _Response:
        return _Response(stream=b'"stream":true' in given[-1])


class _Journal:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._done = loop.create_future()
        self._done.set_result(None)

    def append(self, record: Any) -> asyncio.Future[None]:
        return self._done

    def digest(self, content: Any) -> bytes:
        return b"0" * 16


class _Source:
    def __init__(self, chains: Chains) -> None:
        self.chains = chains
        self._stats = PolicyStats(time.time)

    def note(self, verdicts: Any) -> None:
        self._stats.note(verdicts)


def settings_with(count: int, mode: str) -> Settings:
    policies = [{"use": "pass_through", "name": f"pass-{n}", "mode": mode} for n in range(count)]
    return Settings.model_validate({"policies": policies, "policy_paths": [str(Path(__file__).parent / "policies")]})


def gateway_with(settings: Settings, loop: asyncio.AbstractEventLoop) -> Gateway:
    journal: Any = _Journal(loop)
    transport: Any = _Transport()
    store: Any = None
    upstreams, feed, prices = Upstreams(settings), Feed(), PriceBook(loop.time)
    router = Router(settings, upstreams)
    holds = HoldQueue(
        settings.holds,
        clock=loop,
        wall=time.time,
        new_id=new_ulid,
        publish=lambda kind, hold: None,
        record=lambda record: None,
    )
    sessions = SessionDetector(digest=journal.digest, new_id=new_session_id, ttl_s=60, max_sessions=100, clock=loop.time)

    def services(running: Running) -> PolicyServices:
        return PolicyServices(
            running,
            upstreams=upstreams,
            router=router,
            transport=transport,
            errands=gateway.errands,
            admissions=gateway.admissions,
            prices=prices,
            holds=holds,
            feed=feed,
            pause=gateway.pause,
        )

    gateway = Gateway(
        settings=settings,
        upstreams=upstreams,
        router=router,
        transport=transport,
        journal=journal,
        sessions=sessions,
        prices=prices,
        feed=feed,
        metrics=GatewayMetrics(),
        policies=_Source(build_chains(settings)),
        services=services,
        loop=loop,
        limiter=Limiter(settings.limits, ledger=LocalLedger(store, time.time), prices=prices, clock=loop.time),
    )
    return gateway


def _body(*, stream: bool) -> bytes:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    return json.dumps({"model": "gpt-4o-mini", "stream": stream, "messages": messages}, separators=(",", ":")).encode()


async def _calls(gateway: Gateway, *, stream: bool, count: int) -> float:
    """Seconds for `count` requests, one after the other."""
    body = _body(stream=stream)

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        return

    started = time.perf_counter()
    for _ in range(count):
        scope = {
            "type": "http",
            "method": "POST",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "headers": [(b"host", b"x"), (b"content-type", b"application/json"), (b"authorization", b"Bearer sk-bench")],
            "extensions": {"luthien.write": lambda chunk: True},
            "client": ("127.0.0.1", 1),
        }
        await gateway(scope, receive, send)
    return time.perf_counter() - started


async def measure() -> dict[str, float]:
    """Microseconds added, by what was added."""
    loop = asyncio.get_running_loop()
    kinds = {"none": (0, "enforce"), "one": (1, "enforce"), "ten": (10, "enforce"), "ten off": (10, "off")}
    gateways = {name: gateway_with(settings_with(*kind), loop) for name, kind in kinds.items()}
    best: dict[tuple[str, bool], float] = {}
    for _ in range(ROUNDS):
        for stream, count in ((False, CALLS), (True, STREAMS)):
            for name, gateway in gateways.items():
                seconds = await _calls(gateway, stream=stream, count=count)
                per = seconds / count * 1e6
                best[name, stream] = min(per, best.get((name, stream), per))
    base, stream_base = best["none", False], best["none", True]
    figures = {"request without policies, µs": base, "stream of 200 events without policies, µs": stream_base}
    for name in ("one", "ten", "ten off"):
        figures[f"{name}: added to a request, µs"] = best[name, False] - base
        figures[f"{name}: added to an event, µs"] = (best[name, True] - stream_base - (best[name, False] - base)) / EVENTS
    return {name: round(value, 2) for name, value in figures.items()}


def main() -> int:
    figures = asyncio.run(measure())
    if "--json" in sys.argv:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{value:10.2f}  {name}")
    held = figures["ten: added to a request, µs"] <= 100 and figures["ten: added to an event, µs"] <= 5
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
