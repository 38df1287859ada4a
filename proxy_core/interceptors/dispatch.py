"""Interceptors at work, in a process of their own: one bounded queue, one thread.

Records are put on a deque and told one after the other, a little at a time, because the gateway may share a CPU with this
process. What does not fit is dropped and counted. An interceptor that raises is counted and logged once a minute; one that hangs
fills the queue. At shutdown what waits is worked off within a bound.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from proxy_core.interceptors.base import Begun, Finished, Interceptor
from proxy_core.interceptors.events import Event, EventMaker
from proxy_core.interceptors.inbox import Inbox
from proxy_core.interceptors.records import Began, Ended, begun_of, finished_of
from proxy_core.interceptors.seldom import Seldom

log = logging.getLogger(__name__)

MAX_BATCH = 64
MAX_GOES = 1_000
"""So often one that asks for another go at writing gets it before records come again."""
NAP_S = 0.25
"""While there is work, records are gathered for so long."""
REST_S = 0.25
"""Longest wait while there is none: sessions end and collectors are tried again meanwhile."""
STRETCH_S = 0.0003
"""After so much work it rests for some times as long: a gateway on the same CPU does not wait for it longer than that."""
EASY_PAUSE, BUSY_PAUSE = 2.0, 0.25
"""How many times as long, while nothing waits and while `MANY` records do."""
MANY = 1_000

T = TypeVar("T")


class Counts(NamedTuple):
    """Of one interceptor."""

    taken: int
    """Records that it was given."""
    dropped: int
    """Records that were left out."""
    failed: int
    """Faults of it."""


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
        self._seldom = Seldom(log)

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
        self._seldom.warn("interceptor %s failed (%d times so far): %s: %s", self.kind, self.failed, type(fault).__name__, fault)


class Interceptors:
    """All interceptors of one gateway, told what comes into `inbox`."""

    def __init__(
        self,
        watchers: Sequence[Watcher],
        events: EventMaker,
        *,
        after_batch: Callable[[Interceptors], None] = lambda _: None,
        inbox: Inbox | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`after_batch` is called in the thread, a few times a second also where nothing happens."""
        self.watchers = tuple(watchers)
        self._makes_events = any(one.hears_events for one in watchers)
        self._events = events
        self._after_batch = after_batch
        self.inbox = Inbox() if inbox is None else inbox
        self._clock = clock
        self.done = 0
        """Records that all have been told of."""
        self._closing = False
        self._stretch_began = 0.0
        self._thread = threading.Thread(target=self._run, name="interceptors", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def counts(self) -> list[Counts]:
        """What is counted, interceptor by interceptor."""
        return [Counts(one.taken, self.inbox.missed + one.interceptor.dropped, one.failed) for one in self.watchers]

    # --- the end ---

    def close(self, timeout_s: float) -> None:
        """Work off what waits and close every interceptor, within `timeout_s`; what is left then is dropped."""
        self._closing = True
        self.inbox.wake()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("interceptors did not end within %g s; %d records are dropped", timeout_s, self.inbox.drop_all())

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
            self._after_batch(self)
            if self._closing and not self.inbox:
                break
            if not worked and not self._closing:
                self.inbox.rest(REST_S)
            elif not self.inbox:
                self._pause(NAP_S)
        if self._makes_events:
            self._tell_events(self._guarded(self._events.close))
        for one in self.watchers:
            one.call(_closed, one.interceptor)
        self._after_batch(self)

    def _work_off(self) -> int:
        """Take a batch from the queue; returns how many records it had."""
        count = 0
        self._stretch_began = time.perf_counter()
        while count < MAX_BATCH and (item := self.inbox.take()) is not None:
            count += 1
            try:
                self._take(item)
            except Exception as fault:  # a record that we cannot make out: it is missing, and the log says why
                for one in self.watchers:
                    one.fault(fault)
            self.inbox.done(item)
            self.done += 1
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
        """Rest, where there was work for a while."""
        now = time.perf_counter()
        spent_s = now - self._stretch_began
        if spent_s >= STRETCH_S and not self._closing:
            time.sleep(spent_s * max(BUSY_PAUSE, EASY_PAUSE * (1 - len(self.inbox) / MANY)))
            now = time.perf_counter()
            self._stretch_began = now

    def _pause(self, seconds: float) -> None:
        if not self._closing:
            time.sleep(seconds)


def _overrides(interceptor: Interceptor[Any], method: str) -> bool:
    return getattr(type(interceptor), method) is not getattr(Interceptor, method)


def _closed(interceptor: Interceptor[Any]) -> None:
    interceptor.close()
