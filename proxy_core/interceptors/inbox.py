"""Records that wait for a thread: bounded in number and bytes, put without a lock from one other thread."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

MAX_WAITING = 10_000
MAX_WAITING_BYTES = 64 * 1024 * 1024
"""Of bodies that wait."""


T = TypeVar("T")


class Inbox(Generic[T]):
    """What is put and does not fit is dropped and counted."""

    def __init__(self, max_waiting: int = MAX_WAITING, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._queue: deque[tuple[T, int]] = deque()
        self.missed = 0
        """Records that never came in."""
        # Each is written by one thread alone, so that neither needs a lock.
        self._bytes_put = 0
        self._bytes_taken = 0
        self._asleep = False
        self._wake = threading.Event()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_filling(self) -> bool:
        """Whether half of the room is taken."""
        return 2 * len(self._queue) > self._max_waiting or 2 * (self._bytes_put - self._bytes_taken) > self._max_bytes

    def put(self, item: T, size: int) -> None:
        """Take a record with a body of `size` bytes, or drop and count it."""
        if len(self._queue) >= self._max_waiting or self._bytes_put - self._bytes_taken > self._max_bytes:
            self.missed += 1
            return
        self._bytes_put += size
        self._queue.append((item, size))
        if self._asleep:
            self._asleep = False
            self._wake.set()

    def take(self) -> tuple[T, int] | None:
        """The oldest record and its size, which counts until it is `done` with."""
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def done(self, size: int) -> None:
        self._bytes_taken += size

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
