"""How late the event loop is: a timer that should fire every 50 ms, and the worst it was over the last second."""

from __future__ import annotations

import asyncio
from collections import deque

PERIOD_S = 0.05
KEPT = 20


class LoopLag:
    """Samples the loop's lateness while it is started."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._samples: deque[float] = deque(maxlen=KEPT)
        self._handle: asyncio.TimerHandle | None = None

    @property
    def worst_s(self) -> float:
        """The worst lateness over the last second, in seconds."""
        return max(self._samples, default=0.0)

    def start(self) -> None:
        self._plan()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _plan(self) -> None:
        due = self._loop.time() + PERIOD_S
        self._handle = self._loop.call_at(due, self._sample, due)

    def _sample(self, due: float) -> None:
        self._samples.append(max(0.0, self._loop.time() - due))
        self._plan()
