"""The way of records from the gateway's loop to the interceptors: one bounded queue, one thread.

The loop puts references on a deque and goes on; copying and reading happen in the thread, a little at a time, because both
share one interpreter. What does not fit is dropped and counted. An interceptor that raises is counted and logged once a
minute; one that hangs fills the queue; neither touches the traffic. At shutdown what waits is worked off within a bound.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from proxy_core.interceptors.base import Begun, Finished, Interceptor
from proxy_core.interceptors.events import Event, EventMaker
from proxy_core.interceptors.records import Began, Ended, begun_of, finished_of

if TYPE_CHECKING:
    from proxy_core.journal.records import Intent, Outcome
    from proxy_core.running import Running

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Of bodies that wait."""
MAX_BATCH = 64
MAX_GOES = 1_000
"""So often one that asks for another go at writing gets it before records come again."""
NAP_S = 0.02
"""While there is work, records are gathered for so long."""
REST_S = 0.25
"""Longest wait while there is none: sessions end and collectors are tried again meanwhile."""
STRETCH_S = 0.0001
"""After so much work the loop has the interpreter for some times as long: waiting for it would cost it milliseconds."""
EASY_PAUSE, BUSY_PAUSE = 3.0, 0.25
"""How many times as long, while nothing waits and while `MANY` records do."""
MANY = 1_000
TELL_EVERY_S = 60.0
CLOSE_S = 5.0
CHUNKS_TIMED = 20_000
"""Arrival times are kept for so many chunks of a stream where an interceptor records them."""

T = TypeVar("T")


class Watcher:
    """One interceptor with what is counted of it."""

    def __init__(self, kind: str, interceptor: Interceptor[Any]) -> None:
        self.kind = kind
        self.interceptor = interceptor
        self.hears_begun = _overrides(interceptor, "begun")
        self.hears_finished = _overrides(interceptor, "finished")
        self.hears_events = _overrides(interceptor, "events")
        self.taken = 0
        self.failed = 0
        self._told_at = -TELL_EVERY_S

    def call(self, function: Callable[[T], None], argument: T) -> None:
        """Run one of the interceptor's methods; whatever it raises stays here."""
        try:
            function(argument)
        except (Exception, SystemExit) as fault:
            self.fault(fault)

    def flush(self, now: float) -> bool:
        """Whether it asks for another go."""
        try:
            return self.interceptor.flush(now) is True
        except (Exception, SystemExit) as fault:
            self.fault(fault)
            return False

    def fault(self, fault: BaseException) -> None:
        self.failed += 1
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            log.warning("interceptor %s failed (%d times so far): %s: %s", self.kind, self.failed, type(fault).__name__, fault)


class Interceptors:
    """All interceptors of one gateway. `begun` and `finished` are called on its loop, everything else happens in the thread."""

    def __init__(
        self,
        watchers: Sequence[Watcher],
        events: EventMaker,
        *,
        max_waiting: int = MAX_WAITING,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watchers = tuple(watchers)
        self._times_chunks = any(one.interceptor.times_chunks for one in watchers)
        self._makes_events = any(one.hears_events for one in watchers)
        self._events = events
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._clock = clock
        self._queue: deque[Began | Ended] = deque()
        self._missed = 0
        """Records that never came into the queue."""
        # Each is written by one thread alone, so that neither needs a lock.
        self._bytes_put = 0
        self._bytes_taken = 0
        self._asleep = False
        self._wake = threading.Event()
        self._closing = False
        self._stretch_began = 0.0
        self._thread = threading.Thread(target=self._run, name="interceptors", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # --- on the loop ---

    def begun(self, running: Running, intent: Intent, hashes: tuple[bytes, ...]) -> None:
        """A request is on record."""
        running.began = began = Began(intent, running.glance, hashes)
        if self._times_chunks:
            running.chunks_timed = CHUNKS_TIMED
        self._put(began, len(intent.body))

    def finished(self, running: Running, outcome: Outcome) -> None:
        """Its outcome is; of a transaction that comes here twice the first time counts."""
        began, running.began = running.began, None
        if began is not None:
            self._put(Ended(began, outcome, running), len(outcome.body))

    def _put(self, item: Began | Ended, size: int) -> None:
        if len(self._queue) >= self._max_waiting or self._bytes_put - self._bytes_taken > self._max_waiting_bytes:
            self._missed += 1
            return
        item.size = size
        self._bytes_put += size
        self._queue.append(item)
        if self._asleep:
            self._asleep = False
            self._wake.set()

    # --- what is counted ---

    def events_taken(self) -> dict[str, int]:
        """Records that interceptors were given, by type."""
        return self._summed(lambda one: one.taken)

    def dropped(self) -> dict[str, int]:
        """Records that were left out, by type."""
        return self._summed(lambda one: self._missed + one.interceptor.dropped)

    def errors(self) -> dict[str, int]:
        """Faults of interceptors, by type."""
        return self._summed(lambda one: one.failed)

    def _summed(self, count: Callable[[Watcher], int]) -> dict[str, int]:
        found: dict[str, int] = {}
        for one in self.watchers:
            found[one.kind] = found.get(one.kind, 0) + count(one)
        return found

    # --- the end ---

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Work off what waits and close every interceptor, within `timeout_s`; what is left then is dropped."""
        self._closing = True
        self._wake.set()
        deadline = self._clock() + timeout_s
        while self._thread.is_alive() and self._clock() < deadline:  # noqa: ASYNC110 - a thread sets no asyncio event
            await asyncio.sleep(0.005)
        if self._thread.is_alive():
            left = len(self._queue)
            self._queue.clear()
            self._missed += left
            log.warning("interceptors did not end within %g s; %d records are dropped", timeout_s, left)

    # --- in the thread ---

    def _run(self) -> None:
        while True:
            worked = self._work_off()
            now = self._clock()
            if self._makes_events:
                self._tell_events(self._guarded(self._events.ended_sessions))
            for one in self.watchers:
                goes = 1
                while one.flush(now) and goes < MAX_GOES:
                    goes += 1
                    self._give_way()
                self._give_way()
            if self._closing and not self._queue:
                break
            if not worked:
                self._rest()
            elif not self._queue:
                self._pause(NAP_S)
        if self._makes_events:
            self._tell_events(self._guarded(self._events.close))
        for one in self.watchers:
            one.call(_closed, one.interceptor)

    def _work_off(self) -> int:
        """Take a batch from the queue; returns how many records it had."""
        count = 0
        self._stretch_began = time.perf_counter()
        while count < MAX_BATCH and self._queue:
            item = self._queue.popleft()
            count += 1
            try:
                self._take(item)
            except Exception as fault:  # a record that we cannot make out: it is missing, and the log says why
                for one in self.watchers:
                    one.fault(fault)
            self._bytes_taken += item.size
        return count

    def _take(self, item: Began | Ended) -> None:
        record: Begun | Finished
        if isinstance(item, Began):
            record = begun = begun_of(item)
            for one in self.watchers:
                if one.hears_begun:
                    self._step(one, one.interceptor.begun, begun)
        else:
            record = finished = finished_of(item)
            for one in self.watchers:
                if one.hears_finished:
                    self._step(one, one.interceptor.finished, finished)
        if self._makes_events:
            events = self._events.events_of(record)
            self._give_way()
            self._tell_events(events)

    def _tell_events(self, events: Sequence[Event]) -> None:
        if events:
            for one in self.watchers:
                if one.hears_events:
                    self._step(one, one.interceptor.events, events)

    def _guarded(self, make: Callable[[], Sequence[Event]]) -> Sequence[Event]:
        try:
            return make()
        except Exception:
            log.exception("events could not be made")
            return ()

    def _step(self, one: Watcher, function: Callable[[T], None], argument: T) -> None:
        one.taken += 1
        one.call(function, argument)
        self._give_way()

    def _give_way(self) -> None:
        """Let the loop have the interpreter, where the worker has had it for a while."""
        now = time.perf_counter()
        spent_s = now - self._stretch_began
        if spent_s >= STRETCH_S and not self._closing:
            time.sleep(spent_s * max(BUSY_PAUSE, EASY_PAUSE * (1 - len(self._queue) / MANY)))
            now = time.perf_counter()
            self._stretch_began = now

    def _pause(self, seconds: float) -> None:
        if not self._closing:
            time.sleep(seconds)

    def _rest(self) -> None:
        """Wait for work."""
        self._asleep = True
        if not self._queue and not self._closing:
            self._wake.wait(REST_S)
        self._asleep = False
        self._wake.clear()


def _overrides(interceptor: Interceptor[Any], method: str) -> bool:
    return getattr(type(interceptor), method) is not getattr(Interceptor, method)


def _closed(interceptor: Interceptor[Any]) -> None:
    interceptor.close()
