"""Records that wait for a thread: bounded in number and bytes, put without a lock from one other thread."""

from __future__ import annotations

import threading
from collections import deque

from proxy_core.interceptors.records import Began, Ended

MAX_WAITING = 10_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Of bodies that wait."""


class Inbox:
    """What is put and does not fit is dropped and counted."""

    def __init__(self, max_waiting: int = MAX_WAITING, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._queue: deque[Began | Ended] = deque()
        self.missed = 0
        """Records that never came in."""
        # Each is written by one thread alone, so that neither needs a lock.
        self._bytes_put = 0
        self._bytes_taken = 0
        self._asleep = False
        self._wake = threading.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, item: Began | Ended, size: int) -> None:
        """Take a record with a body of `size` bytes, or drop and count it."""
        if len(self._queue) >= self._max_waiting or self._bytes_put - self._bytes_taken > self._max_bytes:
            self.missed += 1
            return
        item.size = size
        self._bytes_put += size
        self._queue.append(item)
        if self._asleep:
            self._asleep = False
            self._wake.set()

    def take(self) -> Began | Ended | None:
        """The oldest record; its bytes count until it is `done` with."""
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def done(self, item: Began | Ended) -> None:
        self._bytes_taken += item.size

    def wake(self) -> None:
        """End a rest."""
        self._wake.set()

    def rest(self, seconds: float) -> None:
        """Wait for a record, at most so long."""
        self._asleep = True
        if not self._queue:
            self._wake.wait(seconds)
        self._asleep = False
        self._wake.clear()

    def drop_all(self) -> int:
        """Drop and count what waits; returns how many records that were."""
        left = len(self._queue)
        self._queue.clear()
        self.missed += left
        return left
