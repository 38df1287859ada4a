"""Interceptors at work, in a process of their own: one bounded queue, one thread at a time.

Records are put on a deque and told a batch at a time, in spare time: by a thread that runs where nobody else wants the CPU,
which the gateway may share. Where that thread does not get through, and at shutdown, one of ordinary priority takes its place
until nothing waits. What does not fit is dropped and counted. An interceptor that raises is counted and logged once a minute;
one that hangs fills the queue. At shutdown what waits is worked off within a bound.
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
from proxy_core.interceptors.spare_time import SpareTime

log = logging.getLogger(__name__)

MAX_BATCH = 64
"""Records that are told together, interceptor by interceptor: what one of them runs stays in the caches of the CPU, which takes a
third less time than record by record."""
NAP_S = 0.25
"""While there is work, records are gathered for so long."""
REST_S = 0.25
"""Longest wait while there is none: sessions end and collectors are tried again meanwhile."""
LATE_S = 5.0
"""A thread that has not come to the next record for so long has no spare time."""

T = TypeVar("T")
U = TypeVar("U")


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
        self.taken = 0
        self.due = 0
        """What `taken` will be at the end of the batch."""
        self.failed = 0
        self._seldom = Seldom(log)

    def take_all(self, records: Sequence[Begun | Finished]) -> None:
        """Tell the interceptor of requests and ends; whatever it raises stays here."""
        for record in records:
            self.take(record)

    def take(self, record: Begun | Finished) -> None:
        self.taken += 1
        try:
            if isinstance(record, Begun):
                self.interceptor.begun(record)
            else:
                self.interceptor.finished(record)
        except (Exception, SystemExit) as fault:
            self.fault(fault)

    def take_events(self, events: Sequence[Event]) -> None:
        """Tell the interceptor of the events of one record; none are not told."""
        if not events:
            return
        self.taken += 1
        try:
            self.interceptor.events(events)
        except (Exception, SystemExit) as fault:
            self.fault(fault)

    def call(self, function: Callable[[T], None], argument: T) -> None:
        """Run one of the interceptor's methods; whatever it raises stays here."""
        try:
            function(argument)
        except (Exception, SystemExit) as fault:
            self.fault(fault)

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
        inbox: Inbox[Any] | None = None,
        read: Callable[[Any], Began | Ended | None] = lambda item: item,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` makes a record of what is put, or None where nothing is to be told, and raises where it cannot. `after_batch`
        is called a few times a second, also where nothing happens."""
        self.watchers = tuple(watchers)
        self._hear_events = [one for one in watchers if _overrides(one.interceptor, "events")]
        records = [one for one in watchers if _overrides(one.interceptor, "begun") or _overrides(one.interceptor, "finished")]
        self._hear_records = [one for one in records if one not in self._hear_events]
        self._hear_both = [one for one in records if one in self._hear_events]
        self._events = events
        self._after_batch = after_batch
        self._inbox: Inbox[Any] = Inbox() if inbox is None else inbox
        self._read = read
        self._clock = clock
        self._told = 0
        """Records that all have been told of."""
        self._in_hand = 0
        """Records that not all have been told of yet."""
        self._gave_up = False
        self._unread = 0
        """What `read` could not make out."""
        self._unread_seldom = Seldom(log)
        self._closing = threading.Event()
        self._last_turn = clock()
        self._turns = SpareTime("interceptors", self._work_in_spare_time, self._work_at_once)

    def start(self) -> None:
        for one in self.watchers:
            one.call(_started, one.interceptor)
        self._turns.start()

    def put(self, item: Any, size: int) -> None:
        """Take a record with a body of `size` bytes, or drop and count it. Called from one thread."""
        self._inbox.put(item, size)
        if self._inbox.is_filling or self._clock() - self._last_turn > LATE_S:
            self._turns.hasten()

    def miss(self) -> None:
        """Count a record that did not come whole; called from where it is put."""
        self._inbox.missed += 1

    @property
    def done(self) -> int:
        """Records that nothing more becomes of."""
        return self._told + self._unread + self._inbox.missed

    def counts(self) -> list[Counts]:
        """What is counted, interceptor by interceptor."""
        missed = self._inbox.missed + self._unread
        left = [max(0, one.due - one.taken) if self._gave_up else 0 for one in self.watchers]
        return [
            Counts(one.taken, missed + out + one.interceptor.dropped, one.failed)
            for one, out in zip(self.watchers, left, strict=True)
        ]

    # --- the end ---

    def close(self, timeout_s: float) -> None:
        """Work off what waits and close every interceptor, within `timeout_s`; what is left then is dropped."""
        self._closing.set()
        self._inbox.wake()
        self._turns.hasten()
        if not self._turns.join(timeout_s):
            self._gave_up = True
            left = self._inbox.drop_all() + self._in_hand
            log.warning("interceptors did not end within %g s; up to %d records are dropped", timeout_s, left)

    # --- in threads, one at a time ---

    def _work_in_spare_time(self) -> None:
        while not self._turns.is_urgent():
            worked = self._work_off(MAX_BATCH, self._turns.is_urgent)
            if self._turns.is_urgent():
                return
            self._after_work()
            if not worked:
                self._inbox.rest(REST_S)
            elif not self._inbox:
                self._closing.wait(NAP_S)

    def _work_at_once(self) -> bool:
        """Work off what waits; returns whether luthien runs on."""
        self._work_off_all()
        self._turns.calm()
        if not self._closing.is_set():  # if it is set from here on, it is urgent again
            return True
        self._work_off_all()
        self._after_work()
        self._end()
        return False

    def _work_off_all(self) -> None:
        while self._inbox:
            self._work_off(MAX_BATCH)
            self._after_work()

    def _after_work(self) -> None:
        self._last_turn = now = self._clock()
        if self._hear_events:
            self._tell_ends(self._events.ended_sessions)
        for one in self.watchers:
            one.call(one.interceptor.flush, now)
        self._after_batch(self)

    def _end(self) -> None:
        if self._hear_events:
            self._tell_ends(self._events.close)
        for one in self.watchers:
            one.call(_closed, one.interceptor)
        self._after_batch(self)

    def _work_off(self, most: int, is_enough: Callable[[], bool] = lambda: False) -> int:
        """Tell at most so many records, or those until it is enough; returns how many were taken from the queue."""
        count = bytes_taken = 0
        items: list[Began | Ended] = []
        while count < most and not is_enough() and (taken := self._inbox.take()) is not None:
            count += 1
            item, size = taken
            bytes_taken += size
            try:
                record = self._read(item)
            except Exception as fault:
                self._unread += 1
                self._unread_seldom.warn("a record cannot be read: %s: %s", type(fault).__name__, fault)
            else:
                if record is not None:
                    items.append(record)
        self._in_hand = len(items)
        self._tell(items)
        self._told += len(items)
        self._in_hand = 0
        self._inbox.done(bytes_taken)
        return count

    def _tell(self, items: Sequence[Began | Ended]) -> None:
        records = [record for item in items if (record := self._made(_record_of, item)) is not None]
        for one in self.watchers:
            one.due = one.taken + len(records)
        for one in self._hear_records:
            self._last_turn = self._clock()
            one.take_all(records)
        if not self._hear_events:
            return
        events = [self._made(self._events.events_of, record) or () for record in records]
        told = sum(map(bool, events))
        for one in self._hear_events:
            one.due = one.taken + told + (len(records) if one in self._hear_both else 0)
        for one in self._hear_events:
            self._last_turn = self._clock()
            if one in self._hear_both:  # what events tell belongs to the record that they come from
                for record, some in zip(records, events, strict=True):
                    one.take(record)
                    one.take_events(some)
            else:
                for some in events:
                    one.take_events(some)

    def _made(self, make: Callable[[T], U], of: T) -> U | None:
        """None for a record that we cannot make out: it is missing, and the log says why."""
        try:
            return make(of)
        except Exception as fault:
            for one in self.watchers:
                one.fault(fault)
            return None

    def _tell_ends(self, make: Callable[[], Sequence[Event]]) -> None:
        """Tell of sessions that have ended."""
        try:
            events = make()
        except Exception:
            log.exception("events could not be made")
            return
        for one in self._hear_events:
            one.take_events(events)


def _record_of(item: Began | Ended) -> Begun | Finished:
    return begun_of(item) if isinstance(item, Began) else finished_of(item)


def _overrides(interceptor: Interceptor[Any], method: str) -> bool:
    return getattr(type(interceptor), method) is not getattr(Interceptor, method)


def _started(interceptor: Interceptor[Any]) -> None:
    interceptor.start()


def _closed(interceptor: Interceptor[Any]) -> None:
    interceptor.close()
