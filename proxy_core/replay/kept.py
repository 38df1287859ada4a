"""Exchanges that are not held in memory, since a recording may be larger than that: each is read when it is asked for.

They come from the lines of their files, or out of a file without a name that is gone with them.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol, overload

import msgspec
from msgspec import Struct

from proxy_core.replay.exchanges import Exchange

_packing = msgspec.msgpack.Encoder()
_unpacking = msgspec.msgpack.Decoder(Exchange)


class Source(Protocol):
    """Bytes that can be read again."""

    def read(self, start: int, size: int) -> bytes:
        """Raises OSError where they are not there any more."""


class FileSource:
    """A file by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, start: int, size: int) -> bytes:
        with self.path.open("rb", buffering=0) as opened:
            opened.seek(start)
            content = bytearray()
            while len(content) < size and (more := opened.read(size - len(content))):
                content += more
            return bytes(content)


class Spool:
    """A file that only this process has, gone with it."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._end = 0

    def add(self, content: bytes) -> int:
        """Keep it; returns where it begins. Raises OSError."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="luthien-replay-")  # noqa: SIM115 - open as long as the exchanges are there
            weakref.finalize(self, self._file.close)
        self._file.seek(self._end)
        self._file.write(content)
        start, self._end = self._end, self._end + len(content)
        return start

    def read(self, start: int, size: int) -> bytes:
        if self._file is None:
            return b""
        self._file.seek(start)
        return self._file.read(size)


class Kept(Protocol):
    """An exchange that is read when it is asked for."""

    @property
    def started_at(self) -> float | None:
        """Unix time in seconds."""

    @property
    def is_answered(self) -> bool:
        """Whether it is known how it ended."""

    def load(self) -> Exchange:
        """Read it; what is not there any more says so in `lost`."""


class Packed(Struct, frozen=True):
    """An exchange in a spool."""

    spool: Spool
    start: int
    size: int
    started_at: float | None
    is_answered: bool

    def load(self) -> Exchange:
        return _unpacking.decode(self.spool.read(self.start, self.size))


def pack(exchange: Exchange, spool: Spool) -> Packed:
    """The exchange, put away. Raises OSError."""
    content = _packing.encode(exchange)
    is_answered = exchange.client is not None or exchange.upstream is not None or bool(exchange.fault)
    return Packed(spool, spool.add(content), len(content), exchange.started_at, is_answered)


class Exchanges(Sequence[Exchange]):
    """Reads an exchange each time that it is asked for one."""

    def __init__(self, kept: Sequence[Kept]) -> None:
        self._kept = kept

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, place: int) -> Exchange: ...
    @overload
    def __getitem__(self, place: slice) -> Exchanges: ...
    def __getitem__(self, place: int | slice) -> Exchange | Exchanges:
        if isinstance(place, slice):
            return Exchanges(self._kept[place])
        return self._kept[place].load()
