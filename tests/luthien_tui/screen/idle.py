"""When the app under test is idle, told sooner and more surely than by Textual's own wait of 20 ms or more.

A pilot waits two or three times for each key. Here idle is: 4 ms with hardly any work, no widget has a message left, no thread
something to do and no screen something to draw, so that a process that was only kept from running is not taken for idle.
"""

from __future__ import annotations

import asyncio
from time import monotonic, process_time
from typing import Any

from textual._context import active_app
from textual.screen import Screen

PAUSE_S = 0.004
IDLE_CPU_S = 0.0008
LONGEST_S = 10.0
"""A screen that never comes to rest is looked at all the same."""


async def wait_for_idle(min_sleep: float = 0.0, max_sleep: float = LONGEST_S) -> None:
    """In place of `textual._wait.wait_for_idle`."""
    app = active_app.get()
    begun = monotonic()
    while monotonic() - begun < max_sleep:
        worked, rested = process_time(), _threads_rest()
        await asyncio.sleep(PAUSE_S)
        if rested and process_time() - worked < IDLE_CPU_S and monotonic() - begun >= min_sleep and _threads_rest():
            pumps = [app, *app._registry]
            if all(pump._message_queue.empty() for pump in pumps) and not _is_drawing(app._screen_stack):
                return


def _is_drawing(screens: list[Screen[Any]]) -> bool:
    """Whether the front screen has something to lay out or to draw; it does so now instead of with its timer's next turn."""
    if not screens or not screens[-1].is_attached:
        return False
    front = screens[-1]
    if not (
        front._layout_required or front._scroll_required or front._repaint_required or front._dirty_widgets or front._callbacks
    ):
        return False
    front._on_timer_update()
    return True


def _threads_rest() -> bool:
    """Whether the loop's threads have nothing to do."""
    threads: Any = getattr(asyncio.get_running_loop(), "_default_executor", None)
    return threads is None or (threads._work_queue.empty() and threads._idle_semaphore._value >= len(threads._threads))
