"""The way of records from the gateway's loop to the interceptors' process.

The loop puts references on a queue and goes on; a thread packs them and writes them into a pipe, a little at a time, because it
shares the interpreter with the loop. Reading, redacting and writing files happen in the other process, so traffic shares neither
the interpreter nor a crash with interceptors. What does not fit is dropped and counted; a process that dies is started again.
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
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

import msgspec

from proxy_core.interceptors import frames, shown_lines
from proxy_core.interceptors.dispatch import Counts, Watcher
from proxy_core.interceptors.inbox import Inbox
from proxy_core.interceptors.records import Began, Ended, ended
from proxy_core.interceptors.surroundings import Surroundings

if TYPE_CHECKING:
    from proxy_core.journal.records import Intent, Outcome
    from proxy_core.running import Running
    from proxy_core.settings import InterceptorSettings

log = logging.getLogger(__name__)

CLOSE_S = 5.0
CHUNKS_TIMED = 20_000
"""Arrival times are kept for so many chunks of a stream where an interceptor records them."""
NAP_S = 0.02
"""While there is work, records are gathered for so long."""
REST_S = 1.0
STRETCH_S = 0.0001
"""After so much packing it writes, and the loop has the interpreter."""
MAX_BATCH = 64
PIPE_BYTES = 1024 * 1024
FIRST_WAIT_S, LAST_WAIT_S = 0.5, 60.0
"""Before a process that has died is started again."""
TELL_EVERY_S = 60.0
PRINTER = "printer"


class Worker:
    """One process, with the threads that listen to it."""

    def __init__(self, number: int, task: tuple[bytes, bytes], kinds: int) -> None:
        """Raises OSError where it cannot be started."""
        self.number = number
        self.began = time.monotonic()
        self.sent = 0
        """Records that it was given."""
        self.done = 0
        """Those of them that it is done with."""
        self.counts = [Counts(0, 0, 0)] * kinds
        self.unshown = 0
        """Lines that nobody saw."""
        self.has_ended = threading.Event()
        found = [path for path in sys.path if path]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "proxy_core.interceptors.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(found)},
            start_new_session=True,
        )
        self._stdin = cast("IO[bytes]", self._process.stdin)
        self._pipe = self._stdin.fileno()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            try:
                fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            except OSError:
                log.debug("the pipe to the interceptors keeps its size")
        self._ears = [
            threading.Thread(target=self._listen, args=(self._process.stdout,), name="interceptors-say", daemon=True),
            threading.Thread(target=self._overhear, args=(self._process.stderr,), name="interceptors-print", daemon=True),
        ]
        for ear in self._ears:
            ear.start()
        self.write(task)

    def write(self, buffers: Sequence[bytes]) -> None:
        """Write all of these. Raises OSError where the process is gone."""
        rest: list[bytes | memoryview] = [one for one in buffers if one]
        while rest:
            written = os.writev(self._pipe, rest)
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = memoryview(rest[0])[written:]

    def finish(self, timeout_s: float) -> bool:
        """Let it work off what it has; False where it was killed instead."""
        with suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(max(0.0, timeout_s))
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
            return False
        finally:
            for ear in self._ears:
                ear.join(1.0)
        return True

    def kill(self) -> None:
        self._process.kill()

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
        self.has_ended.set()

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
    """The interceptors of one gateway. `begun` and `finished` are called on its loop."""

    def __init__(
        self,
        watchers: Sequence[Watcher],
        wanted: Sequence[InterceptorSettings],
        surroundings: Surroundings,
        *,
        inbox: Inbox | None = None,
    ) -> None:
        """`watchers` are what becomes of `wanted`; they tell what there is and do nothing here."""
        self._kinds = tuple(one.kind for one in watchers)
        self._times_chunks = any(one.interceptor.times_chunks for one in watchers)
        self._wanted = list(wanted)
        self._surroundings = surroundings
        self._inbox = Inbox() if inbox is None else inbox
        self._worker: Worker | None = None
        self._before = [Counts(0, 0, 0)] * len(self._kinds)
        """Of processes that have died."""
        self._unshown_before = 0
        self._number = 0
        self._wait_s = FIRST_WAIT_S
        self._told_at = -TELL_EVERY_S
        self._closing = threading.Event()
        self._close_by = 0.0
        self._thread = threading.Thread(target=self._run, name="interceptors", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # --- on the loop ---

    def begun(self, running: Running, intent: Intent, hashes: tuple[bytes, ...]) -> None:
        """A request is on record."""
        running.began = began = Began(intent, running.glance, hashes)
        if self._times_chunks:
            running.chunks_timed = CHUNKS_TIMED
        self._inbox.put(began, len(intent.body))

    def finished(self, running: Running, outcome: Outcome) -> None:
        """Its outcome is; of a transaction that comes here twice the first time counts."""
        began, running.began = running.began, None
        if began is not None:
            self._inbox.put(ended(began, outcome, running), len(outcome.body))

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Let the interceptors work off what waits and end, within `timeout_s`; what is left then is dropped."""
        self._close_by = time.monotonic() + timeout_s
        self._closing.set()
        self._inbox.wake()
        while self._thread.is_alive() and time.monotonic() < self._close_by:  # noqa: ASYNC110 - a thread sets no asyncio event
            await asyncio.sleep(0.005)
        if self._thread.is_alive() and (worker := self._worker) is not None:
            worker.kill()
            while self._thread.is_alive() and time.monotonic() < self._close_by + 1.0:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)

    # --- what is counted ---

    def events_taken(self) -> dict[str, int]:
        """Records that interceptors were given, by type."""
        return self._summed([one.taken for one in self._counts()])

    def dropped(self) -> dict[str, int]:
        """Records that were left out, by type, and lines of `printer` that nobody saw."""
        found = self._summed([self._inbox.missed + one.dropped for one in self._counts()])
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

    # --- in the thread ---

    def _run(self) -> None:
        while not (self._closing.is_set() and not self._inbox):
            worker = self._worker
            if worker is None or worker.has_ended.is_set():
                self._bury()
                if self._closing.is_set() or not self._begin():
                    break
                continue
            try:
                sent = self._send(worker)
            except OSError:
                worker.has_ended.wait(1.0)
                worker.has_ended.set()
                continue
            if not sent:
                self._inbox.rest(REST_S)
            elif not self._inbox and not self._closing.is_set():
                time.sleep(NAP_S)
        self._bury()
        self._inbox.drop_all()

    def _begin(self) -> bool:
        """Start a process; False where luthien stops meanwhile."""
        if self._number:
            self._closing.wait(self._wait_s)
            self._wait_s = min(LAST_WAIT_S, self._wait_s * 2)
        if self._closing.is_set():
            return False
        self._number += 1
        level = logging.getLogger("proxy_core").getEffectiveLevel()
        try:
            task = frames.pack(frames.TASK, (self._wanted, self._surroundings, level))
            self._worker = Worker(self._number, task, len(self._kinds))
        except OSError as fault:
            self._tell(f"interceptors cannot be started ({fault}); they are tried again")
        return True

    def _bury(self) -> None:
        """Let a process end, where it has not, and keep its counts."""
        worker = self._worker
        if worker is None:
            return
        has_died = worker.has_ended.is_set()
        in_time = worker.finish(1.0 if has_died else self._close_by - time.monotonic())
        self._worker = None
        lost = max(0, worker.sent - worker.done)
        self._before = [
            _added(one, Counts(other.taken, other.dropped + lost, other.failed))
            for one, other in zip(self._before, worker.counts, strict=True)
        ]
        self._unshown_before += worker.unshown
        if has_died:
            if time.monotonic() - worker.began > LAST_WAIT_S:
                self._wait_s = FIRST_WAIT_S
            self._tell(f"the interceptors' process has died (status {worker.status}): {lost} records are lost")
        elif not in_time:
            log.warning("interceptors did not end in time: %d records are dropped", lost + len(self._inbox))

    def _send(self, worker: Worker) -> int:
        """Pack a batch and write it; returns how many records it had. Raises OSError where the process is gone."""
        buffers: list[bytes] = []
        taken: list[Began | Ended] = []
        until = time.perf_counter() + STRETCH_S
        while len(taken) < MAX_BATCH and (item := self._inbox.take()) is not None:
            taken.append(item)
            try:
                buffers += self._packed(item, worker)
            except Exception as fault:  # something that cannot be told to another process: a policy's own object
                self._inbox.missed += 1
                self._tell(f"a record cannot be told to interceptors: {type(fault).__name__}: {fault}")
            if time.perf_counter() > until:
                break
        try:
            worker.write(buffers)
        finally:
            for item in taken:
                self._inbox.done(item)
        return len(taken)

    def _packed(self, item: Began | Ended, worker: Worker) -> list[bytes]:
        if isinstance(item, Began):
            packed = frames.pack_began(item)
            item.sent_to = worker.number
            worker.sent += 1
            return [*packed]
        before: tuple[bytes, ...] = ()
        if item.began.sent_to != worker.number:
            # What a process was told that has died may be lost with it: better twice than an end without a beginning.
            before = frames.pack_began(item.began, tell=item.began.sent_to > 0)
            worker.sent += item.began.sent_to > 0
        packed = frames.pack_ended(item)
        worker.sent += 1
        return [*before, *packed]

    def _tell(self, what: str) -> None:
        now = time.monotonic()
        if now - self._told_at >= TELL_EVERY_S:
            self._told_at = now
            log.warning("%s", what)


def _added(one: Counts, other: Counts) -> Counts:
    return Counts(one.taken + other.taken, one.dropped + other.dropped, one.failed + other.failed)
