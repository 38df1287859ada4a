"""The way of records from the gateway's loop to the interceptors' process.

The loop packs records and writes them into a pipe that never makes it wait (`outgoing`); no thread does that, because one that
shares the interpreter with the loop delays it by more than the work takes. Reading, redacting and writing files happen
in the other process, so traffic shares neither the interpreter nor a crash with interceptors. What does not fit is dropped and
counted; a process that dies is started again.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

import msgspec

from proxy_core.interceptors import frames, shown_lines
from proxy_core.interceptors.dispatch import Counts, Watcher
from proxy_core.interceptors.inbox import MAX_WAITING, MAX_WAITING_BYTES
from proxy_core.interceptors.outgoing import Outgoing
from proxy_core.interceptors.records import end_of
from proxy_core.interceptors.seldom import Seldom
from proxy_core.interceptors.surroundings import Surroundings
from proxy_core.tasks import spawn

if TYPE_CHECKING:
    from proxy_core.journal.records import Intent, Outcome
    from proxy_core.running import Running
    from proxy_core.settings import InterceptorSettings

log = logging.getLogger(__name__)

CLOSE_S = 10.0
"""Long enough for a process that has the lower priority wherever CPUs are few."""
CHUNKS_TIMED = 20_000
"""Arrival times are kept for so many chunks of a stream where an interceptor records them."""
GATHER_S = 0.1
"""Records are written together that come within this time."""
NEXT_S = 0.002
"""Between two goes at writing, while more waits than one of them takes."""
PIPE_BYTES = 1024 * 1024
CLOSED = -1
"""In place of a pipe."""
FIRST_WAIT_S, LAST_WAIT_S = 0.5, 60.0
"""Before a process that has died is started again."""
PRINTER = "printer"


class Worker:
    """One process, with the threads that listen to it."""

    def __init__(self, kinds: int, on_end: Callable[[], None] = lambda: None) -> None:
        """`on_end` is called in a thread. Raises OSError where the process cannot be started."""
        self.began = time.monotonic()
        self.done = 0
        """Records that it is done with."""
        self.counts = [Counts(0, 0, 0)] * kinds
        self.unshown = 0
        """Lines that nobody saw."""
        self._on_end = on_end
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "proxy_core.interceptors.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            process_group=0,  # a terminal's signals are not for it; a session of its own would get an equal share of the CPU
        )
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self.pipe = self._stdin.fileno()
        """Where frames are written to; never waits. `CLOSED` when nothing is to be written any more."""
        os.set_blocking(self.pipe, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            try:
                fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            except OSError:
                log.debug("the pipe to the interceptors keeps its size")
        self._ears = [
            threading.Thread(target=self._listen, args=(self._process.stdout,), name="interceptors-say", daemon=True),
            threading.Thread(target=self._overhear, args=(self._process.stderr,), name="interceptors-print", daemon=True),
        ]
        for ear in self._ears:
            ear.start()

    def finish(self, timeout_s: float) -> bool:
        """Let it work off what it has; False where it was killed instead. Waits."""
        with suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        finally:
            for ear in self._ears:
                ear.join(1.0)
        return True

    @property
    def status(self) -> int | None:
        """How it ended, where it has."""
        return self._process.returncode

    # --- in threads of their own ---

    def _listen(self, pipe: IO[bytes]) -> None:
        with pipe:
            try:
                for line in pipe:
                    self._hear(msgspec.json.decode(line))
            except (OSError, ValueError, msgspec.MsgspecError) as fault:
                log.warning("interceptors say what cannot be read: %s", fault)
        self._on_end()

    def _hear(self, said: dict[str, Any]) -> None:
        if lines := said.get("lines"):
            self.unshown += shown_lines.show(lines)
        elif told := said.get("log"):
            level, name, message = told
            logging.getLogger(name).log(level, "%s", message)
        elif counts := said.get("counts"):
            self.done = counts[0]
            self.counts = [Counts(*one) for one in counts[1]]

    def _overhear(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                log.warning("an interceptor printed: %s", line.decode("utf-8", "replace").rstrip())


class InterceptorProcess:
    """The interceptors of one gateway. Everything is called on its loop."""

    def __init__(
        self,
        watchers: Sequence[Watcher],
        wanted: Sequence[InterceptorSettings],
        surroundings: Surroundings,
        *,
        max_waiting: int = MAX_WAITING,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        """`watchers` are what becomes of `wanted`; they tell what there is and do nothing here."""
        self._kinds = tuple(one.kind for one in watchers)
        self._times_chunks = any(one.interceptor.times_chunks for one in watchers)
        self._wanted = list(wanted)
        self._surroundings = surroundings
        self._worker: Worker | None = None
        self._outgoing = Outgoing(max_waiting, max_waiting_bytes, self._cannot_tell)
        self._before = [Counts(0, 0, 0)] * len(self._kinds)
        """Of processes that have ended."""
        self._unshown_before = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._packs_soon = False
        self._flushing: asyncio.TimerHandle | None = None
        self._is_full = False
        """The pipe takes nothing now; the loop tells when it does."""
        self._has_ended = asyncio.Event()
        self._closing = asyncio.Event()
        self._close_by = 0.0
        self._caring: asyncio.Task[None] | None = None
        self._seldom = Seldom(log)

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._caring = spawn(self._care(), name="interceptors")

    # --- records ---

    def begun(self, running: Running, intent: Intent, hashes: tuple[bytes, ...]) -> None:
        """A request is on record."""
        if self._times_chunks:
            running.chunks_timed = CHUNKS_TIMED
        running.told = self._outgoing.put_request(intent, running.glance, hashes)
        self._pack_soon()

    def finished(self, running: Running, outcome: Outcome) -> None:
        """Its outcome is; of a transaction that comes here twice the first time counts."""
        request, running.told = running.told, None
        if request is not None:
            self._outgoing.put_end(request, end_of(outcome, running))
            self._pack_soon()

    def _pack_soon(self) -> None:
        """Pack after all that the loop has to do now: a request goes to its upstream first, and an answer to its client."""
        if not self._packs_soon and self._loop is not None:
            self._packs_soon = True
            self._loop.call_soon(self._pack)

    def _pack(self) -> None:
        self._packs_soon = False
        self._outgoing.pack()
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flushing is None and not self._is_full and self._outgoing and self._loop is not None:
            self._flushing = self._loop.call_later(GATHER_S, self._flush)

    def _cannot_tell(self, fault: Exception) -> None:
        self._seldom.warn("%s", f"a record cannot be told to interceptors: {type(fault).__name__}: {fault}")

    def _flush(self) -> None:
        """Write what the pipe takes now."""
        self._flushing = None
        worker, loop, outgoing = self._worker, self._loop, self._outgoing
        if worker is None or worker.pipe == CLOSED or loop is None:
            return  # what waits is for the next process
        try:
            outgoing.write(worker.pipe)
        except BlockingIOError:
            pass
        except OSError:
            return  # it has ended; who cares for it has been told
        if outgoing.is_stuck != self._is_full:
            self._is_full = outgoing.is_stuck
            if self._is_full:
                loop.add_writer(worker.pipe, self._flush)
            else:
                loop.remove_writer(worker.pipe)
        if outgoing and not self._is_full:
            self._flushing = loop.call_later(NEXT_S, self._flush)

    # --- the process ---

    async def _care(self) -> None:
        """Start a process, and another one when it dies, until luthien stops."""
        wait_s = FIRST_WAIT_S
        while True:
            self._has_ended.clear()
            try:
                await self._begin()
            except OSError as fault:
                self._seldom.warn("%s", f"interceptors cannot be started ({fault}); they are tried again")
            else:
                await self._until(self._has_ended, self._closing)
                if self._closing.is_set():
                    break
                if (worker := self._worker) is not None and time.monotonic() - worker.began > LAST_WAIT_S:
                    wait_s = FIRST_WAIT_S
                await self._bury("died")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), wait_s)
            if self._closing.is_set():
                break
            wait_s = min(LAST_WAIT_S, wait_s * 2)
        while self._outgoing and self._worker is not None and not self._has_ended.is_set() and time.monotonic() < self._close_by:
            self._flush()
            await asyncio.sleep(NEXT_S)
        self._cancel_flush()
        await self._bury("did not end in time")
        self._outgoing.drop_all()

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()

        def ended_in_thread() -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._has_ended.set)

        level = logging.getLogger("proxy_core").getEffectiveLevel()
        task = frames.pack_task((self._wanted, self._surroundings, level))
        self._worker = await asyncio.to_thread(Worker, len(self._kinds), ended_in_thread)
        self._outgoing.begin(task)
        self._cancel_flush()
        self._flush()

    async def _until(self, *events: asyncio.Event) -> None:
        waits = [spawn(one.wait(), name="interceptors") for one in events]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()

    async def _bury(self, how: str) -> None:
        """Let a process end, where it has not, and keep its counts; what was packed for it and not done counts as dropped."""
        worker = self._worker
        if worker is None:
            return
        if self._is_full:
            asyncio.get_running_loop().remove_writer(worker.pipe)
            self._is_full = False
        worker.pipe = CLOSED  # its number may soon be that of a client's connection
        has_died = self._has_ended.is_set() and not self._closing.is_set()
        in_time = await asyncio.to_thread(worker.finish, 1.0 if has_died else self._close_by - time.monotonic())
        self._worker = None
        lost = max(0, self._outgoing.sent - worker.done)
        self._before = [
            _added(one, Counts(other.taken, other.dropped + lost, other.failed))
            for one, other in zip(self._before, worker.counts, strict=True)
        ]
        self._unshown_before += worker.unshown
        self._outgoing.next_process()
        if has_died or not in_time:
            self._seldom.warn("%s", f"the interceptors' process {how} (status {worker.status}): {lost} records are dropped")

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Let the interceptors work off what waits and end, within `timeout_s`; what is left then is dropped."""
        self._close_by = time.monotonic() + timeout_s
        self._closing.set()
        if self._caring is not None:
            await asyncio.wait([self._caring])

    def _cancel_flush(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None

    # --- what is counted ---

    def events_taken(self) -> dict[str, int]:
        """Records that interceptors were given, by type."""
        return self._summed([one.taken for one in self._counts()])

    def dropped(self) -> dict[str, int]:
        """Records that were left out, by type, and lines of `printer` that nobody saw."""
        found = self._summed([self._outgoing.missed + one.dropped for one in self._counts()])
        if unshown := self._unshown_before + (self._worker.unshown if self._worker else 0):
            found[PRINTER] = found.get(PRINTER, 0) + unshown
        return found

    def errors(self) -> dict[str, int]:
        """Faults of interceptors, by type."""
        return self._summed([one.failed for one in self._counts()])

    def _counts(self) -> list[Counts]:
        worker = self._worker
        return self._before if worker is None else [_added(*both) for both in zip(self._before, worker.counts, strict=True)]

    def _summed(self, counts: Sequence[int]) -> dict[str, int]:
        found: dict[str, int] = {}
        for kind, count in zip(self._kinds, counts, strict=True):
            found[kind] = found.get(kind, 0) + count
        return found


def _added(one: Counts, other: Counts) -> Counts:
    return Counts(one.taken + other.taken, one.dropped + other.dropped, one.failed + other.failed)
