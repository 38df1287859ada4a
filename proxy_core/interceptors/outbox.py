"""Lines on their way to a collector: in memory while it takes them, in bounded files while it does not.

A line leaves only when `done` says that it was taken, so a collector may get lines twice after a crash, never none. What is on
disk when luthien stops, or is killed, is sent at the next start. Above the bound the oldest lines go, counted. Two threads use
it: one puts, one takes.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from itertools import islice
from pathlib import Path

from proxy_core.interceptors import files

MAX_IN_MEMORY = 5_000
"""Lines; more go to disk."""
MAX_MEMORY_BYTES = 16 * 1024 * 1024
SEGMENT_BYTES = 512 * 1024
MAX_BATCH_BYTES = 1024 * 1024
"""Of the lines that are sent together, unless one alone has more."""
MAX_PROCESSES = 64
_FIRST = 1_000_000_000
_NAME = re.compile(r"(\d{10})\.jsonl")


class Outbox:
    """The lines of one collector."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._base = self._folder = folder
        self._hold: int | None = None
        """Keeps the folder from other processes."""
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._memory: deque[bytes] = deque()
        self._memory_bytes = 0
        self._hand: deque[bytes] = deque()
        """Lines that are being sent, the oldest of all."""
        self._hand_file: Path | None = None
        """The segment that they come from."""
        self._segments: deque[tuple[Path, int]] = deque()
        """Files with their size, oldest first."""
        self._growing: Path | None = None
        self._closed = False
        self.dropped = 0

    def open(self) -> None:
        """Find what an earlier run has left. Processes that share a data folder take one folder each, and the first one what
        others have left behind. Raises OSError."""
        folders = [self._base, *(self._base.with_name(f"{self._base.name}-{number}") for number in range(2, MAX_PROCESSES))]
        for folder in folders:
            self._folder = folder
            self._hold = files.hold(folder / "in-use")
            if self._hold is not None:
                break
        found = _segments_in(self._folder)
        if self._folder == self._base:
            for folder in folders[1:]:
                if folder.is_dir() and (held := files.hold(folder / "in-use")) is not None:
                    try:
                        for left in _segments_in(folder):
                            number = int(found[-1].stem) + 1 if found else _FIRST
                            found.append(left.rename(self._base / f"{number:010d}.jsonl"))
                    finally:
                        os.close(held)
        self._segments = deque((path, path.stat().st_size) for path in found)

    @property
    def waiting(self) -> bool:
        """Whether anything is to be sent."""
        return bool(self._hand or self._segments or self._memory)

    @property
    def backlog(self) -> bool:
        """Whether lines wait on disk."""
        return bool(self._segments or self._hand_file)

    @property
    def in_memory(self) -> int:
        return len(self._memory)

    def put(self, line: bytes) -> None:
        """Add a line. Raises OSError where memory is full and the disk does not take it; then lines are dropped and counted."""
        with self._lock:
            self._memory.append(line)
            self._memory_bytes += len(line)
            if len(self._memory) > MAX_IN_MEMORY or self._memory_bytes > MAX_MEMORY_BYTES:
                self._spill()

    def take(self, count: int) -> list[bytes]:
        """At most `count` of the oldest lines, fewer where they are long; they stay until `done` or `failed`."""
        with self._lock:
            if not self._hand:
                self._fill_hand(count)
            taken: list[bytes] = []
            size = 0
            for line in islice(self._hand, count):
                size += len(line)
                if taken and size > MAX_BATCH_BYTES:
                    break
                taken.append(line)
            return taken

    def done(self, count: int) -> None:
        """The first `count` lines of those taken have arrived, or are refused for good."""
        with self._lock:
            if self._closed:
                return
            for _ in range(min(count, len(self._hand))):
                self._hand.popleft()
            if not self._hand and self._hand_file is not None:
                self._hand_file.unlink(missing_ok=True)
                self._hand_file = None

    def failed(self) -> None:
        """The collector does not take lines now: put what was taken on disk. Raises OSError."""
        with self._lock:
            if not self._closed:
                self._put_back()

    def close(self) -> None:
        """Put everything on disk. Raises OSError."""
        with self._lock:
            self._closed = True
            try:
                self._put_back()
            finally:
                try:
                    self._spill()
                finally:
                    if self._hold is not None:
                        os.close(self._hold)

    # --- under the lock ---

    def _fill_hand(self, count: int) -> None:
        while self._segments and not self._hand:
            path, _ = self._segments.popleft()
            if path == self._growing:
                self._growing = None
            try:
                self._hand.extend(line + b"\n" for line in path.read_bytes().split(b"\n") if line)
            except OSError:
                continue  # it is gone, or cannot be read: there is nothing to send of it
            if self._hand:
                self._hand_file = path
            else:
                path.unlink(missing_ok=True)
        if not self._hand:
            while self._memory and len(self._hand) < count:
                line = self._memory.popleft()
                self._memory_bytes -= len(line)
                self._hand.append(line)

    def _put_back(self) -> None:
        """Lines in hand become the oldest segment."""
        lines = b"".join(self._hand)
        count = len(self._hand)
        self._hand.clear()
        before, self._hand_file = self._hand_file, None
        if not lines:
            return
        if before is not None and before.stat().st_size == len(lines):
            self._segments.appendleft((before, len(lines)))
            return
        number = int(self._segments[0][0].stem) - 1 if self._segments else _FIRST
        path = before or self._folder / f"{number:010d}.jsonl"
        fresh = path.with_suffix(".new")
        try:
            fresh.unlink(missing_ok=True)
            files.append(fresh, lines)
            fresh.replace(path)
        except OSError:
            self.dropped += count
            raise
        self._segments.appendleft((path, len(lines)))
        self._keep_bound()

    def _spill(self) -> None:
        """Lines in memory go to the newest segments."""
        while self._memory:
            room = SEGMENT_BYTES - (self._segments[-1][1] if self._growing is not None else SEGMENT_BYTES)
            if room <= 0:
                self._grow_another()
                room = SEGMENT_BYTES
            lines: list[bytes] = []
            while self._memory and room > 0:
                lines.append(self._memory.popleft())
                room -= len(lines[-1])
            data = b"".join(lines)
            self._memory_bytes -= len(data)
            path, size = self._segments[-1]
            try:
                files.append(path, data)
            except OSError:
                self.dropped += len(lines)
                raise
            self._segments[-1] = (path, size + len(data))
            self._keep_bound()

    def _grow_another(self) -> None:
        last = self._segments[-1][0] if self._segments else self._hand_file
        self._growing = self._folder / f"{int(last.stem) + 1 if last is not None else _FIRST:010d}.jsonl"
        self._segments.append((self._growing, 0))

    def _keep_bound(self) -> None:
        while len(self._segments) > 1 and sum(size for _, size in self._segments) > self._max_bytes:
            path, _ = self._segments.popleft()
            try:
                self.dropped += path.read_bytes().count(b"\n")
            except OSError:
                pass  # it is gone already
            path.unlink(missing_ok=True)


def _segments_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
