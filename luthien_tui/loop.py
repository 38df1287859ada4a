"""The event loop that gateway and screen share, and when its garbage is collected.

A full collection of a process that holds a screen and fifty thousand rows takes tens of milliseconds, which every client
would feel. So the collector never runs by itself: young garbage goes once a second, all of it only when nothing is under way or
memory has grown. uvloop is used where it exists.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

YOUNG_EVERY_S = 1.0
GROWTH_BYTES = 48 * 1024 * 1024
IDLE_TICKS = 5


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop whose task factory nobody can change: Textual would set an eager one for the gateway's tasks too."""
    try:
        import uvloop
    except ImportError:
        return _PlainLoop()
    fast: type[asyncio.AbstractEventLoop] = type("GatewayLoop", (uvloop.Loop,), {"set_task_factory": lambda self, factory: None})
    return fast()


class _PlainLoop(asyncio.SelectorEventLoop):
    def set_task_factory(self, factory: Any) -> None:
        """Keep the default."""


class QuietCollector:
    """Collects on the loop's clock instead of in the middle of a request.

    `activity` gives transactions under way, and those since the start: idle is when none runs and none came for a while.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, activity: Callable[[], tuple[int, int]]) -> None:
        self._loop = loop
        self._activity = activity
        self._total = 0
        self._timer: asyncio.TimerHandle | None = None
        self._quiet_ticks = 0
        self._worked = False
        self._resident = 0

    def start(self) -> None:
        """Set aside everything alive now (code, tables, styles), and take over from Python's own triggers."""
        gc.collect()
        gc.freeze()
        gc.disable()
        self._resident = resident_bytes()
        self._schedule()

    def settle(self) -> None:
        """Set aside what has been built since, such as a screen, without a collection."""
        gc.freeze()

    def stop(self) -> None:
        """Hand back to Python."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gc.unfreeze()
        gc.enable()

    def _schedule(self) -> None:
        self._timer = self._loop.call_later(YOUNG_EVERY_S, self._tick)

    def _tick(self) -> None:
        active, total = self._activity()
        if active or total != self._total:
            self._total = total
            self._quiet_ticks = 0
            self._worked = True
        else:
            self._quiet_ticks += 1
        resident = resident_bytes()
        idle = self._worked and self._quiet_ticks == IDLE_TICKS
        if idle or resident > self._resident + GROWTH_BYTES:
            gc.collect()
            self._resident = resident_bytes()
            self._worked = False
        else:
            gc.collect(1)
        self._schedule()


def resident_bytes() -> int:
    """Memory of this process in RAM; 0 where the system does not tell cheaply."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
