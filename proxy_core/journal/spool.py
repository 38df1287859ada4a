"""A file of rows that could not be written to the store yet.

Frames of length, CRC and msgpack, appended and flushed, so that they survive a killed process; a torn last frame
is what a crash leaves and is skipped. Rows are already redacted. The file is 0600.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

_FRAME = struct.Struct("<II")
Rows = dict[str, list[Any]]


class Spool:
    """The spool of one gateway process; `count` records wait in it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.spool"
        self.count = 0
        if self.path.exists():
            self.count = sum(count for count, _ in self._frames())

    def append(self, rows: Rows, count: int) -> None:
        """Add the rows of `count` records. Raises OSError."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        payload = msgspec.msgpack.encode((count, rows))
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
            while frame:
                frame = frame[os.write(descriptor, frame) :]
        finally:
            os.close(descriptor)
        self.count += count

    def read(self) -> Iterator[Rows]:
        """The rows that wait, oldest first, a frame at a time."""
        for _, rows in self._frames():
            yield rows

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)
        self.count = 0

    def _frames(self) -> Iterator[tuple[int, Rows]]:
        with self.path.open("rb") as file:
            while len(head := file.read(_FRAME.size)) == _FRAME.size:
                length, checksum = _FRAME.unpack(head)
                payload = file.read(length)
                if len(payload) < length or zlib.crc32(payload) != checksum:
                    return
                count, rows = msgspec.msgpack.decode(payload)
                yield count, {table: [tuple(row) for row in table_rows] for table, table_rows in rows.items()}
