"""What the loop leaves for the interceptors' process, on its way into the pipe.

A record is packed soon after it was put: not at once, because a client waits then, and not much later, because what it is made of
leaves the CPU's caches, and the packing of many would hold up the loop. What is packed is written a few times a second, together.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from proxy_core.interceptors import frames
from proxy_core.interceptors.records import End

if TYPE_CHECKING:
    from proxy_core.journal.records import Intent
    from proxy_core.wire.glance import Glance

    _Fresh = tuple[Intent, Glance, tuple[bytes, ...]]

AT_ONCE = 256
"""Records joined in one go, so that the loop is not kept for long."""
WRITE_BYTES = 256 * 1024
"""Written in one go, for the same reason."""
MAX_BUFFERS = 256
JOINED_BYTES = 32 * 1024
"""Smaller bodies are copied beside what is told of them; larger ones go into the pipe from where they are."""


class ToldRequest(Struct, gc=False):
    """A request as it goes into the pipe; kept until its end is there, which a new process could not read without it."""

    frame: bytes = b""
    """Empty for one that is not packed yet, or could not be."""
    body: bytes = b""
    sent_to: int = 0
    """The number of the process that has it; 0 for none."""


class _ToldEnd(Struct, gc=False):
    request: ToldRequest
    frame: bytes
    body: bytes


class Outgoing:
    """Records that wait, and those that are on their way to the process that is `number` now."""

    def __init__(self, max_waiting: int, max_waiting_bytes: int, on_fault: Callable[[Exception], None]) -> None:
        """`on_fault` is told what cannot be packed."""
        self._max_waiting = max_waiting
        self._max_bytes = max_waiting_bytes
        self._on_fault = on_fault
        self._fresh: list[tuple[ToldRequest, _Fresh | End]] = []
        """What is not packed yet, in order."""
        self._items: deque[ToldRequest | _ToldEnd] = deque()
        self._buffers: deque[bytes | memoryview] = deque()
        self._bytes = 0
        """Of what waits and of buffers."""
        self.number = 1
        self.sent = 0
        """Records for the process that have left the queue."""
        self.missed = 0
        """Records that did not fit, or could not be packed."""

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._fresh or self._items or self._buffers)

    @property
    def is_stuck(self) -> bool:
        """Whether the pipe has not taken all that it was given."""
        return bool(self._buffers)

    def put_request(self, intent: Intent, glance: Glance, hashes: tuple[bytes, ...]) -> ToldRequest:
        """Take a request."""
        request = ToldRequest()
        self._fresh.append((request, (intent, glance, hashes)))
        return request

    def put_end(self, request: ToldRequest, end: End) -> None:
        """Take the end of a request."""
        self._fresh.append((request, end))

    def pack(self) -> None:
        """Pack what has been put since the last time, or drop and count it."""
        fresh, self._fresh = self._fresh, []
        for request, told in fresh:
            try:
                if isinstance(told, End):
                    self._pack_end(request, told)
                else:
                    self._pack_request(request, *told)
            except Exception as fault:  # something that cannot be told to another process: a policy's own object, say
                self.missed += 1
                self._on_fault(fault)

    def _pack_request(self, request: ToldRequest, intent: Intent, glance: Glance, hashes: tuple[bytes, ...]) -> None:
        request.frame, request.body = frames.pack_began(intent, glance, hashes)
        self._put(request)

    def _pack_end(self, request: ToldRequest, end: End) -> None:
        if request.frame:
            self._put(_ToldEnd(request, *frames.pack_end(end)))
        else:
            self.missed += 1

    def _put(self, item: ToldRequest | _ToldEnd) -> None:
        if len(self._items) >= self._max_waiting or self._bytes > self._max_bytes:
            self.missed += 1
            return
        self._items.append(item)
        self._bytes += len(item.frame) + len(item.body)

    def begin(self, task: bytes) -> None:
        """`task` is the first thing that the process is told."""
        self._buffers.appendleft(task)
        self._bytes += len(task)

    def next_process(self) -> None:
        """What has left the queue is gone with the process; what waits is for the next one."""
        self.number += 1
        self.sent = 0
        self._bytes -= sum(map(len, self._buffers))
        self._buffers.clear()

    def write(self, pipe: int) -> None:
        """Write what the pipe takes now. Raises OSError, BlockingIOError where it takes nothing."""
        self.pack()
        if not self._buffers:
            self._join()
        if self._buffers:
            self._written(os.writev(pipe, self._next()))

    def drop_all(self) -> None:
        """Drop and count what waits."""
        self.pack()
        self.missed += len(self._items)
        self._items.clear()

    # --- writing ---

    def _join(self) -> None:
        """Take from the queue what is written next."""
        items, number = self._items, self.number
        small: list[bytes] = []
        size = 0
        for _ in range(min(AT_ONCE, len(items))):
            item = items.popleft()
            self._bytes -= len(item.frame) + len(item.body)
            if isinstance(item, ToldRequest):
                item.sent_to = number
            elif item.request.sent_to != number:
                size += self._repeat(item.request, small)
            self.sent += 1
            self._part(item.frame, small)
            self._part(item.body, small)
            size += len(item.frame) + len(item.body)
            if size > WRITE_BYTES:
                break
        self._add(b"".join(small))

    def _repeat(self, request: ToldRequest, small: list[bytes]) -> int:
        """Tell the process of a request that another one was told of, or none, because it was dropped; its bytes."""
        # What a process was told that has died may be lost with it: better twice than an end without a beginning.
        is_told = request.sent_to > 0
        request.sent_to = self.number
        self.sent += is_told
        self._part(request.frame if is_told else frames.for_its_end(request.frame), small)
        self._part(request.body, small)
        return len(request.frame) + len(request.body)

    def _part(self, part: bytes, small: list[bytes]) -> None:
        if len(part) < JOINED_BYTES:
            small.append(part)
            return
        self._add(b"".join(small))
        small.clear()
        self._add(part)

    def _add(self, buffer: bytes) -> None:
        if buffer:
            self._buffers.append(buffer)
            self._bytes += len(buffer)

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
