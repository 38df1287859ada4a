"""A queue of holds over a clock that stands still until it is told to go on."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

from proxy_core.control.hold_subject import HoldSubject
from proxy_core.control.holds import HoldQueue
from proxy_core.control.plane import HoldInfo
from proxy_core.hold_record import HoldRecord
from proxy_core.settings import HoldSettings
from proxy_core.tasks import spawn
from proxy_core.transaction import HoldOutcome
from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Operation

START = 1_800_000_000.0


class _Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class StillClock:
    """The part of an event loop that the queue needs."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._timers: list[tuple[float, int, _Timer, Callable[..., object], tuple[Any, ...]]] = []
        self._count = count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> _Timer:
        timer = _Timer()
        heapq.heappush(self._timers, (when, next(self._count), timer, callback, args))
        return timer

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer, callback, args = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            if not timer.cancelled:
                callback(*args)
        self.now = until


class HoldBench:
    """A queue, and all that it says to the world."""

    def __init__(self, **settings: Any) -> None:
        self.clock = StillClock()
        self.wall_offset = START - self.clock.now
        self.records: list[HoldRecord] = []
        self.feed: list[tuple[str, HoldInfo]] = []
        self.unwritten: list[asyncio.Future[None]] | None = None
        """Where it is a list, records become durable only when a test says so."""
        self._ids = count(1)
        self.queue = self.new_queue(**settings)

    def new_queue(self, **settings: Any) -> HoldQueue:
        return HoldQueue(
            HoldSettings(**{"retry_grace_s": 30.0, **settings}),
            clock=self.clock,
            wall=lambda: self.clock.now + self.wall_offset,
            new_id=lambda ms: f"hold-{next(self._ids)}",
            publish=lambda kind, info: self.feed.append((kind, info)),
            record=self._record,
        )

    def _record(self, record: HoldRecord) -> asyncio.Future[None] | None:
        self.records.append(record)
        if self.unwritten is None:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.unwritten.append(future)
        return future

    async def client(
        self, subject: HoldSubject, *, timeout_s: float = 600.0, on_timeout: str = "deny"
    ) -> asyncio.Task[HoldOutcome]:
        """A client whose transaction is held: it waits in a task."""
        task = spawn(self.queue.hold(subject, timeout_s=timeout_s, on_timeout=on_timeout), name="client")
        await settled()
        return task

    async def leave(self, task: asyncio.Task[HoldOutcome]) -> None:
        task.cancel()
        await settled()

    def only(self) -> HoldInfo:
        (info,) = self.queue.pending()
        return info

    def decide(self, decision: str, hold: HoldInfo | None = None, **more: Any) -> HoldInfo:
        hold = hold or self.only()
        return self.queue.decide(hold.id, decision=decision, shown=more.pop("shown", hold.shown), **more)

    def statuses(self, hold_id: str) -> list[str]:
        return [record.status for record in self.records if record.id == hold_id]


async def settled() -> None:
    """Give every task its turn."""
    for _ in range(5):
        await asyncio.sleep(0)


def tool_call(transaction_id: str = "t-1", **changes: Any) -> HoldSubject:
    values: dict[str, Any] = {
        "transaction_id": transaction_id,
        "stage": Stage.TOOL_CALL,
        "policy": "hold_for_approval",
        "why": "every tool call is held",
        "content": '{"command":"rm -rf /srv/builds"}',
        "tool": "bash",
        "call_id": "call_1",
        "operation": Operation.CHAT,
        "key": "ci",
        "target": "POST /v1/chat/completions openai",
    }
    return HoldSubject(**{**values, **changes})
