"""Group commit: everything that waits goes into the store in one transaction as soon as the writer is free.

A waiter is released when its batch is committed. While the store cannot be written the configured mode holds:
`spill` appends to a spool that is taken in later, `block` lets waiters wait and refuses new requests,
`drop` counts what is lost and writes the gap down as soon as it can. Nothing is lost without a trace.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal

from proxy_core.errors import JournalUnavailable, StoreError
from proxy_core.journal.backends import Backend
from proxy_core.journal.records import ControlChange, Intent, Record
from proxy_core.journal.rows import RowBuilder, grown
from proxy_core.journal.spool import Spool
from proxy_core.tasks import spawn

log = logging.getLogger(__name__)

Mode = Literal["spill", "block", "drop"]
MAX_BATCH = 512
BUSY_BATCH, FULL_BATCH = 4, 64
"""After a batch of so many records more are waited for, up to so many."""
GATHER_S = 0.001
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 5.0


class JournalWriter:
    """The one writer of a gateway process."""

    def __init__(
        self, backend: Backend, builder: RowBuilder, spool: Spool, *, mode: Mode, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._backend = backend
        self._builder = builder
        self._spool = spool
        self._mode: Mode = mode
        self._clock = clock
        self._waiting: list[tuple[Record, asyncio.Future[None], float]] = []
        self._writing: list[tuple[Record, asyncio.Future[None], float]] = []
        self._last_count = 0
        """Records of the last batch."""
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._retry_s = FIRST_RETRY_S
        self._retry_at = 0.0
        self._gap_started_ns = 0
        self.status: Literal["ok", "spilling", "failing"] = "ok"
        self.dropped = 0
        self.batches = 0
        self.written = 0

    def start(self) -> None:
        self._new_future = asyncio.get_running_loop().create_future
        if self._spool.count:
            self.status = "spilling"
        self._task = spawn(self._run(), name="journal writer")

    def append(self, record: Record) -> asyncio.Future[None]:
        """Hand over a record; the future is done when the record is durable. Raises JournalUnavailable for an intent
        or a change that cannot be taken while the store is in trouble and the mode is `block`."""
        if self.status == "failing" and self._mode != "drop" and isinstance(record, Intent | ControlChange):
            raise JournalUnavailable("the journal cannot be written, so nothing new is let through; see `luthien doctor`")
        future: asyncio.Future[None] = self._new_future()
        self._waiting.append((record, future, self._clock()))
        if len(self._waiting) == 1:
            self._wake.set()
        return future

    @property
    def depth(self) -> int:
        """Records that wait for their commit."""
        return len(self._waiting) + len(self._writing)

    @property
    def spilled(self) -> int:
        return self._spool.count

    @property
    def oldest_s(self) -> float:
        """Age of the oldest record that waits, in seconds."""
        first = self._writing or self._waiting
        return self._clock() - first[0][2] if first else 0.0

    async def close(self) -> None:
        """Write what waits, then stop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        while True:
            if not self._waiting and not self._closing:
                self._wake.clear()
                await self._pause()
            if self.status != "ok" and self._clock() >= self._retry_at:
                await self._try_again()
            if self._waiting:
                await self._gather()
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                self._writing = batch
                await self._commit(batch)
                self._writing = []
                self._last_count = len(batch)
            elif self._closing:
                return

    async def _pause(self) -> None:
        """Wait for records; in trouble, no longer than until the next try."""
        if self.status == "ok":
            await self._wake.wait()
            return
        try:
            await asyncio.wait_for(self._wake.wait(), max(0.01, self._retry_at - self._clock()))
        except TimeoutError:
            pass

    async def _gather(self) -> None:
        """Under load, let the loop go round while that brings records: a commit costs as much as writing ten of them."""
        if self._last_count < BUSY_BATCH:
            return
        until = self._clock() + GATHER_S
        count = 0
        while count < len(self._waiting) < FULL_BATCH and self._clock() < until:
            count = len(self._waiting)
            await asyncio.sleep(0)

    async def _commit(self, batch: list[tuple[Record, asyncio.Future[None], float]]) -> None:
        records = [record for record, _, _ in batch]
        if self.status == "spilling" and self._mode == "spill":
            await self._spill(records)
        else:
            await self._write_or_handle(records)
        self.batches += 1
        self.written += len(batch)
        for _, future, _ in batch:
            if not future.done():
                future.set_result(None)

    async def _write_or_handle(self, records: list[Record]) -> None:
        while True:
            try:
                await self._backend.write(self._builder, records)
            except StoreError as error:
                self._builder.forget_stored()
                log.error("journal: %s", error)
                if self._mode == "spill":
                    await self._spill(records)
                    return
                if self._mode == "drop" or self._closing:
                    self._drop(len(records))
                    return
                self.status = "failing"
                await asyncio.sleep(self._next_delay())
            else:
                await self._recovered()
                return

    async def _spill(self, records: list[Record]) -> None:
        # Rows in the spool are complete in themselves: no message of theirs is taken for stored already.
        self._builder.forget_stored()
        rows = self._builder.build(records)
        self._builder.forget_stored()
        try:
            await asyncio.to_thread(self._spool.append, rows.as_lists(), len(records))
        except OSError as error:
            log.critical("journal: neither the store nor the spool can be written (%s): %d records lost", error, len(records))
            self._drop(len(records))
            self.status = "failing"
            return
        if self.status != "spilling":
            log.warning("journal: the store cannot be written; records go to %s until it can", self._spool.path)
        self.status = "spilling"
        self._retry_at = max(self._retry_at, self._clock() + FIRST_RETRY_S)

    def _drop(self, count: int) -> None:
        if not self._gap_started_ns:
            self._gap_started_ns = time.time_ns()
        self.dropped += count
        self.status = "failing"

    async def _try_again(self) -> None:
        if not self._spool.count:
            self._retry_at = self._clock() + self._next_delay()
            await self._recovered()
            return
        try:
            for rows in self._spool.read():
                await self._backend.write_rows(grown(rows))
        except StoreError as error:
            self._retry_at = self._clock() + self._next_delay()
            log.warning("journal: still not writable (%s); next try in %.1f s", error, self._retry_s)
            return
        count = self._spool.count
        self._spool.clear()
        self._builder.forget_stored()
        log.info("journal: writable again; %d records taken in from the spool", count)
        await self._recovered()

    def _next_delay(self) -> float:
        delay, self._retry_s = self._retry_s, min(self._retry_s * 2, LAST_RETRY_S)
        return delay

    async def _recovered(self) -> None:
        if self.status == "ok":
            return
        if self._gap_started_ns:
            gap = (self._gap_started_ns, time.time_ns(), self.dropped, "the store could not be written")
            try:
                await self._backend.write_rows({"gaps": [gap]})
            except StoreError:
                self.status = "failing"
                return
            self._gap_started_ns = 0
        self.status = "ok"
        self._retry_s = FIRST_RETRY_S
