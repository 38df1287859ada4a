"""Sends recorded requests through a gateway of their own and says what came out differently.

The gateway is a real one, with the policies and rules of the configuration: sockets, chain, codecs and journal are those of
every day. Offline, a loopback stands in for all upstreams, and nothing leaves the machine; live, requests go to one upstream.
Limits, keys and the health of upstreams depend on the hour and on what went before, so they are left out, and what they had
refused is not replayed. What waits for a person is decided as it was recorded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from proxy_core.control.plane import ControlConflict, ControlNotFound, HoldInfo
from proxy_core.errors import UpstreamError
from proxy_core.interceptors.recording_format import Facts
from proxy_core.replay.comparing import Difference, Outcome, compare, facts_of, recorded
from proxy_core.replay.current import HEADER, Current, Names, wait_s
from proxy_core.replay.exchanges import Answered, Exchange
from proxy_core.replay.loopback import Loopback, ReplayTransport
from proxy_core.replay.preparing import endpoint_of, path_to, why_not
from proxy_core.replay.restoring import as_recorded, client_headers, restored
from proxy_core.routing.reasons import Reason
from proxy_core.routing.transport import UpstreamTransport
from proxy_core.routing.upstreams import Upstream, Upstreams
from proxy_core.runtime import GatewayRuntime
from proxy_core.settings import Settings, Timeouts
from proxy_core.tasks import spawn
from proxy_core.wire.dialects import Dialect
from proxy_core.wire.headers import response_headers

HOLD_POLL_S = 0.01
MAX_AT_ONCE = 500
"""Transactions under way, or done and not yet fetched."""
REPLAY = "replay"
"""Who decides what nobody had decided."""
TRANSLATED = "its answer was translated from another API and stands translated in the recording; it was not translated again"
_HOLD_ENDS: dict[str, str] = {
    Reason.APPROVED: "approve",
    Reason.APPROVED_EDITED: "approve",
    Reason.DENIED_BY_OPERATOR: "deny",
    Reason.HOLD_EXPIRED: "deny",
    Reason.HOLD_CAP_REACHED: "deny",
    Reason.HOLD_SHUTDOWN: "deny",
}


class Replayed(Struct, kw_only=True):
    """One transaction after its replay."""

    exchange: Exchange
    outcome: Outcome | None
    """None where it was not sent."""
    transaction_id: str = ""
    differences: list[Difference] = []
    notes: list[str] = []
    """What could not be done as it was recorded, for people."""
    skipped: str = ""
    """Why it was not sent; empty where it was."""


class Pace(Struct, frozen=True):
    """When requests are sent."""

    delay_s: float = 0.0
    """Pause after each answer."""
    speed: float | None = None
    """Times as fast as recorded, overlapping as they did, streams at their recorded pace; None: one after another, at once."""


class Replay:
    """A gateway for replaying. `async with Replay(settings, data_dir) as replay: async for one in replay.run(exchanges)`."""

    def __init__(
        self,
        settings: Settings,
        data_dir: Path,
        *,
        pace: Pace | None = None,
        target: Callable[[Exchange], bytes] | None = None,
        new_ids: bool = False,
    ) -> None:
        """Offline, unless `target` says where a request goes live: a raw path and query of the gateway.

        The settings are those of `offline_settings` or `live`. `new_ids` is for a journal that may have the recorded ones.
        """
        self._settings = settings
        self._data_dir = data_dir
        self._pace = pace or Pace()
        self._target = target
        self._names_of_upstreams = Upstreams(settings).names
        self._names = Names(new_ids=new_ids)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Replay:
        transport: UpstreamTransport | None = None
        if self._target is None:
            loopback = await self._stack.enter_async_context(Loopback(self._names.find, speed=self._pace.speed))
            transport = ReplayTransport(loopback)
        runtime = self._runtime = GatewayRuntime(
            self._settings,
            data_dir=self._data_dir,
            transport=transport,
            front=self._names.front,
            new_id=self._names.new_id,
        )
        try:
            await runtime.start()
        except BaseException:
            await self._stack.aclose()
            raise
        self._client = UpstreamTransport(only_to=f"http://{runtime.address}")
        self._gateway = Upstream(
            name="gateway",
            api=Dialect.OPENAI,
            base_url=f"http://{runtime.address}",
            path_prefix="",
            host_header=runtime.address.encode("ascii"),
            timeouts=Timeouts(first_byte_s=86_400, idle_s=86_400, total_s=86_400),
        )
        self._deciding = spawn(self._decide_holds(), name="decide holds")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deciding.cancel()
        await self._client.aclose()
        self._runtime.begin_shutdown()
        if kind is not None:
            self._runtime.begin_shutdown()
        await self._runtime.wait_closed()
        await self._stack.aclose()

    async def run(self, exchanges: Sequence[Exchange]) -> AsyncIterator[Replayed]:
        """Replay in order; what ended first comes first."""
        if self._pace.speed is not None:
            async for one in self._as_recorded(exchanges, self._pace.speed):
                yield one
            return
        for number, exchange in enumerate(exchanges, 1):
            yield await self._one(number, exchange)
            if self._pace.delay_s and number < len(exchanges):
                await asyncio.sleep(self._pace.delay_s)

    async def _as_recorded(self, exchanges: Sequence[Exchange], speed: float) -> AsyncIterator[Replayed]:
        """Each at its recorded time."""
        begun, first = time.monotonic(), next((one.started_at for one in exchanges if one.started_at is not None), 0.0)
        done: asyncio.Queue[asyncio.Task[Replayed]] = asyncio.Queue()
        room = asyncio.Semaphore(MAX_AT_ONCE)

        async def start_all() -> None:
            for number, exchange in enumerate(exchanges, 1):
                await room.acquire()
                if exchange.started_at is not None:
                    await asyncio.sleep(wait_s(begun + (exchange.started_at - first) / speed - time.monotonic()))
                task = spawn(self._one(number, exchange), name="replay one")
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                task.add_done_callback(done.put_nowait)
                if self._pace.delay_s:
                    await asyncio.sleep(self._pace.delay_s)

        tasks: set[asyncio.Task[Replayed]] = set()
        starting = spawn(start_all(), name="start replays")
        try:
            for _ in range(len(exchanges)):
                yield (await done.get()).result()
                room.release()
        finally:
            for task in (starting, *tasks):
                task.cancel()

    async def _one(self, number: int, exchange: Exchange) -> Replayed:
        if why := why_not(exchange):
            return Replayed(exchange=exchange, outcome=None, skipped=why)
        name, live = b"%d" % number, self._target is not None
        replayed = Current(number, exchange if live else restored(exchange), started=time.monotonic())
        self._names.by_number[name] = replayed
        try:
            answer = await self._ask(replayed, name)
            if answer is not None:
                answer = as_recorded(answer, exchange, replayed.transaction_id)
            outcome = await self._outcome(replayed, answer)
        finally:
            del self._names.by_number[name]
            self._names.by_id.pop(replayed.transaction_id, None)
        return Replayed(
            exchange=exchange,
            outcome=outcome,
            transaction_id=replayed.transaction_id,
            differences=compare(exchange, outcome, live=live, routed=TRANSLATED not in replayed.notes),
            notes=replayed.notes,
        )

    async def _ask(self, replayed: Current, name: bytes) -> Answered | None:
        """The client's side of one transaction; None where the connection ended before any answer."""
        exchange = replayed.exchange
        target = self._path_of(replayed) if self._target is None else self._target(exchange)
        headers = [*client_headers(exchange.headers, live=self._target is not None), (HEADER, name)]
        try:
            response = await self._client.send(self._gateway, exchange.method, target, headers, exchange.body)
        except UpstreamError:
            return None
        body = bytearray()
        chunks: list[tuple[int, float]] = []
        complete = True
        try:
            while chunk := await response.read():
                body += chunk
                chunks.append((len(body), round((time.monotonic() - replayed.started) * 1e3, 3)))
        except UpstreamError:
            complete = False
        finally:
            response.close()
        return Answered(
            status=response.status,
            headers=response_headers(response.headers),
            body=bytes(body),
            chunks=chunks,
            duration_ms=(time.monotonic() - replayed.started) * 1e3,
            complete=complete,
        )

    def _path_of(self, replayed: Current) -> bytes:
        """Where a request is sent offline: as recorded, but for one whose answer stands translated in the recording. That one
        goes to an upstream of its own API, where nothing is translated again."""
        exchange = replayed.exchange
        facts, api = exchange.facts, exchange.upstream_api
        chosen = self._settings.upstreams.get(facts.upstream) if facts is not None else None
        endpoint = endpoint_of(exchange, self._names_of_upstreams)
        if chosen is None or endpoint is None or not api or api == chosen.api:
            return exchange.target
        own = next((name for name, one in self._settings.upstreams.items() if one.api == api), None)
        if own is None:
            return exchange.target
        replayed.note(TRANSLATED)
        return path_to(own, exchange, endpoint)

    async def _outcome(self, replayed: Current, answer: Answered | None) -> Outcome:
        """The answer, and what the gateway's journal says of it."""
        found = await self._runtime.plane.detail(replayed.transaction_id) if replayed.transaction_id else None
        if found is None:
            return Outcome(answer=answer, facts=Facts())
        return Outcome(answer=answer, facts=facts_of(found.row, recorded(found.verdicts)), operation=found.row.operation)

    # --- what waits for a person ---

    async def _decide_holds(self) -> None:
        """Decide what waits as it was decided in the recording."""
        plane = self._runtime.plane
        while True:
            for hold in plane.holds():
                decided = self._decision(hold)
                with suppress(ControlConflict, ControlNotFound):
                    await plane.decide_hold(
                        hold.id, decision=decided.decision, shown=hold.shown, reason=decided.reason, who=decided.who
                    )
            await asyncio.sleep(HOLD_POLL_S)

    def _decision(self, hold: HoldInfo) -> _Decision:
        replayed = self._names.by_id.get(hold.transaction_id)
        if replayed is None:
            return _Decision("deny")
        facts = replayed.exchange.facts
        for verdict in facts.verdicts if facts is not None else ():
            decision = _HOLD_ENDS.get(verdict.reason) if verdict.policy == hold.policy else None
            if decision is not None:
                if verdict.reason == Reason.APPROVED_EDITED:
                    replayed.note("a person edited what was held; the recording has no edit, so it was approved as it is")
                who = verdict.detail.get("decided_by")
                said = verdict.message if decision == "deny" else ""
                return _Decision(decision, said, who[:200] if isinstance(who, str) else REPLAY)
        if self._target is not None:
            replayed.note("it was held and the recording has no decision, so it was denied")
            return _Decision("deny")
        replayed.note("it was held and the recording has no decision, so it was approved")
        return _Decision("approve")


class _Decision(Struct, frozen=True):
    """How a hold ends."""

    decision: str
    reason: str = ""
    who: str = REPLAY
