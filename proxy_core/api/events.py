"""The event feed as server-sent events: resumable by sequence number, and never a burden for the gateway.

Each reader pulls from the ring at its own pace. One that falls behind is told how many events it lost, one that reads nothing
stops its own pulling, and no reader makes the gateway wait or keep more than the ring. Event ids are the feed's sequence
numbers; `hello` tells in which life of the gateway they count.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.exceptions import HTTPException

from proxy_core.api.answers import to_json
from proxy_core.api.shapes import EventData
from proxy_core.control.feed import FeedRecord
from proxy_core.control.filters import Filter
from proxy_core.control.plane import ControlPlane

HEARTBEAT_S = 15.0
PULL_S = 0.05
"""Pause between two looks at a feed that has nothing new."""
BATCH = 200
MAX_READERS = 64


class EventStreams:
    """The readers of the feed. `stopping` ends them all."""

    def __init__(self, plane: ControlPlane, stopping: asyncio.Event) -> None:
        self._plane = plane
        self._stopping = stopping
        self._readers = 0

    def begin(self, after: int | None, only: Filter) -> AsyncIterator[bytes]:
        """One reader's stream. Raises HTTPException where there are too many."""
        if self._readers >= MAX_READERS:
            raise HTTPException(503, f"{MAX_READERS} readers follow the events already")
        return self._read(after, only)

    async def _read(self, after: int | None, only: Filter) -> AsyncIterator[bytes]:
        clock = asyncio.get_running_loop().time
        state = self._plane.state()
        # A number beyond the newest is of an earlier life of the gateway: all that is kept of this one is new to the reader.
        position = state.sequence if after is None else after if after <= state.sequence else 0
        hello = {"started_at": state.started_at, "sequence": state.sequence}
        self._readers += 1
        try:
            yield b"retry: 2000\nid: %d\nevent: hello\ndata: %b\n\n" % (position, to_json(hello))
            spoken = clock()
            while True:
                ending = self._stopping.is_set()
                records, lost = self._plane.events(position, BATCH)
                if lost:
                    position += lost
                    yield b'id: %d\nevent: lost\ndata: {"lost":%d}\n\n' % (position, lost)
                if records:
                    position = records[-1].sequence
                if told := b"".join([_event(one) for one in records if one.row is None or only.matches(one.row)]):
                    yield told
                    spoken = clock()
                elif clock() - spoken >= HEARTBEAT_S:
                    yield b": nothing new\n\n"
                    spoken = clock()
                if ending and not records:
                    break
                await asyncio.sleep(0 if records else PULL_S)
        finally:
            self._readers -= 1


def _event(record: FeedRecord) -> bytes:
    data = EventData(sequence=record.sequence, kind=record.kind, note=record.note, row=record.row)
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (record.sequence, record.kind.encode("ascii"), to_json(data))
