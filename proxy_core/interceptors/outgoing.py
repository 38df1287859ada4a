"""What the loop leaves for the interceptors' process, on its way into the pipe.

While a request runs, only a reference to its record is put in a queue. Records are packed and written together a few times a
second: the code that packs them is not in the CPU's caches between two requests, and one by one it costs several times as much.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

from proxy_core.interceptors import frames
from proxy_core.interceptors.records import Began, Ended

AT_ONCE = 32
"""Records packed in one go, so that the loop is not kept for long."""
WRITE_BYTES = 256 * 1024
"""Written in one go, for the same reason."""
MAX_BUFFERS = 256
JOINED_BYTES = 32 * 1024
"""Smaller bodies are copied beside what is told of them; larger ones go into the pipe from where they are."""


class Outgoing:
    """Records that wait, and those that are packed for the process that is `number` now."""

    def __init__(self, max_waiting: int, max_waiting_bytes: int, on_fault: Callable[[Exception], None]) -> None:
        """`on_fault` is told what cannot be packed."""
        self._max_waiting = max_waiting
        self._max_bytes = max_waiting_bytes
        self._on_fault = on_fault
        self._items: deque[Began | Ended] = deque()
        self._buffers: deque[bytes | memoryview] = deque()
        self._bytes = 0
        """Of bodies that wait and of buffers."""
        self.number = 1
        self.sent = 0
        """Records packed for the process."""
        self.missed = 0
        """Records that did not fit, or could not be packed."""

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._items or self._buffers)

    @property
    def is_stuck(self) -> bool:
        """Whether the pipe has not taken all that is packed."""
        return bool(self._buffers)

    def put(self, item: Began | Ended) -> bool:
        """Take a record, or drop and count it; whether it was taken."""
        if len(self._items) >= self._max_waiting or self._bytes > self._max_bytes:
            self.missed += 1
            return False
        self._items.append(item)
        self._bytes += item.size
        return True

    def begin(self, task: bytes) -> None:
        """`task` is the first thing that the process is told."""
        self._buffers.appendleft(task)
        self._bytes += len(task)

    def next_process(self) -> None:
        """What was packed is gone with the process; what waits is for the next one."""
        self.number += 1
        self.sent = 0
        self._bytes -= sum(map(len, self._buffers))
        self._buffers.clear()

    def write(self, pipe: int) -> None:
        """Pack some of what waits and write what the pipe takes now. Raises OSError, BlockingIOError where it takes nothing."""
        if not self._buffers:
            self._pack()
        if self._buffers:
            self._written(os.writev(pipe, self._next()))

    def drop_all(self) -> None:
        """Drop and count what waits."""
        self.missed += len(self._items)
        self._items.clear()

    # --- packing ---

    def _pack(self) -> None:
        parts: list[bytes] = []
        items = self._items
        size = 0
        for _ in range(min(AT_ONCE, len(items))):
            item = items.popleft()
            self._bytes -= item.size
            try:
                if isinstance(item, Began):
                    item.sent_to = self.number
                    found = frames.pack_began(item)
                else:
                    found = self._packed_end(item, parts)
            except Exception as fault:  # something that cannot be told to another process: a policy's own object
                self.missed += 1
                self._on_fault(fault)
                continue
            self.sent += 1
            parts += found
            size += item.size
            if size > WRITE_BYTES:
                break
        self._join(parts)

    def _packed_end(self, item: Ended, parts: list[bytes]) -> tuple[bytes, bytes]:
        began = item.began
        if began.sent_to != self.number:
            # What a process was told that has died may be lost with it: better twice than an end without a beginning.
            known = began.sent_to > 0
            parts += frames.pack_began(began, tell=known)
            began.sent_to = self.number
            self.sent += known
        return frames.pack_ended(item)

    def _join(self, parts: list[bytes]) -> None:
        small: list[bytes] = []
        for part in parts:
            if len(part) < JOINED_BYTES:
                small.append(part)
                continue
            self._add(b"".join(small))
            small.clear()
            self._add(part)
        self._add(b"".join(small))

    def _add(self, buffer: bytes) -> None:
        if buffer:
            self._buffers.append(buffer)
            self._bytes += len(buffer)

    # --- writing ---

    def _next(self) -> list[bytes | memoryview]:
        found: list[bytes | memoryview] = []
        room = WRITE_BYTES
        for one in self._buffers:
            found.append(one if len(one) <= room else memoryview(one)[:room])
            room -= len(found[-1])
            if room <= 0 or len(found) == MAX_BUFFERS:
                break
        return found

    def _written(self, count: int) -> None:
        self._bytes -= count
        buffers = self._buffers
        while buffers and count >= len(buffers[0]):
            count -= len(buffers.popleft())
        if count:
            buffers[0] = memoryview(buffers[0])[count:]
