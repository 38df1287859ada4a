"""Any history of clients, operators and time: each hold is decided at most once, and whoever waited got that decision."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_core.control.plane import ControlConflict, ControlNotFound
from proxy_core.hold_record import HoldRecord
from proxy_core.transaction import HoldOutcome
from tests.proxy_core.control.hold_fixtures import HoldBench, settled, tool_call

CONTENTS = ('{"n":1}', '{"n":2}')
steps = st.one_of(
    st.tuples(st.just("come"), st.sampled_from(["ci", "dev"]), st.sampled_from(CONTENTS), st.sampled_from([20.0, 200.0])),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.just("decide"), st.integers(0, 20), st.sampled_from(["approve", "edit", "deny"])),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 15.0, 31.0, 300.0])),
    st.tuples(st.just("extend"), st.integers(0, 20)),
    st.tuples(st.just("record"), st.integers(0, 3)),
)


class History:
    """One run of steps, and what must hold after each."""

    def __init__(self) -> None:
        self.bench = HoldBench(max_per_key=2, max_total=3)
        self.bench.unwritten = []
        self.clients: list[asyncio.Task[HoldOutcome]] = []
        self.seen: list[str] = []

    async def step(self, name: str, *given: Any) -> None:
        bench = self.bench
        if name == "come":
            key, content, timeout_s = given
            number = len(self.clients)
            self.clients.append(await bench.client(tool_call(f"t-{number}", key=key, content=content), timeout_s=timeout_s))
            self.seen += [info.id for _, info in bench.feed if info.id not in self.seen]
        elif name == "leave" and self.clients:
            await bench.leave(self.clients[given[0] % len(self.clients)])
        elif name == "wait":
            bench.clock.advance(given[0])
        elif name == "record":
            assert bench.unwritten is not None
            for written in bench.unwritten[: given[0]]:
                written.set_result(None)
            del bench.unwritten[: given[0]]
        elif name in ("decide", "extend") and self.seen:
            self.ask(self.seen[given[0] % len(self.seen)], name, *given[1:])
        await settled()
        self.check()

    def ask(self, hold_id: str, name: str, decision: str = "") -> None:
        shown = next(info.shown for _, info in self.bench.feed if info.id == hold_id)
        pending = {info.id for info in self.bench.queue.pending()}
        edited = '{"n":3}' if decision == "edit" else None
        try:
            if name == "extend":
                self.bench.queue.extend(hold_id, 60)
            else:
                self.bench.queue.decide(hold_id, decision=decision, shown=shown, edited=edited, who="ada")
        except (ControlConflict, ControlNotFound):
            assert hold_id not in pending
        else:
            assert hold_id in pending

    def check(self) -> None:
        pending = self.bench.queue.pending()
        assert len(pending) == self.bench.queue.pending_count <= 3
        assert all(sum(one.key == key for one in pending) <= 2 for key in ("ci", "dev"))
        ends: dict[str, set[tuple[str, str | None, str]]] = {}
        for record in self.bench.records:
            if record.status != "pending":
                ends.setdefault(record.id, set()).add((record.status, record.edited, record.decided_by))
        assert all(len(end) == 1 for end in ends.values()), "a hold was decided twice"
        assert not {one.id for one in pending} & set(ends)
        for number, client in enumerate(self.clients):
            if client.done() and not client.cancelled():
                self.check_heard(client.result(), f"t-{number}")

    def check_heard(self, outcome: HoldOutcome, transaction_id: str) -> None:
        mine = {record.id for record in self.bench.records if record.transaction_id == transaction_id}
        said = [record for record in self.bench.records if record.id in mine and record.status != "pending"]
        assert any(_agrees(record, outcome) for record in said)


def _agrees(record: HoldRecord, outcome: HoldOutcome) -> bool:
    wanted = {"approved": "approve", "edited": "edit", "denied": "deny", "expired": "deny"}.get(record.status)
    return wanted == outcome.decision and record.edited == outcome.edited


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=30))
def test_any_history(history: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        past = History()
        for name, *values in history:
            await past.step(name, *values)
        assert past.bench.unwritten is not None
        await past.step("record", len(past.bench.unwritten))
        await past.step("wait", 90_000.0)
        assert past.bench.queue.pending() == []
        assert all(client.done() for client in past.clients)
        assert not past.bench.queue._joinable
        assert not past.bench.queue._per_key

    asyncio.run(run())
