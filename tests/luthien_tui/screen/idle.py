"""When the app under test is idle, told sooner and more surely than by Textual's own wait of 20 ms or more.

A pilot waits two or three times for each key. Here idle is: 4 ms with hardly any work, no widget has a message left and no
thread something to do, so that a process that was only kept from running is not taken for idle.
"""

from __future__ import annotations

import asyncio
from time import monotonic, process_time
from typing import Any

from textual._context import active_app

PAUSE_S = 0.004
IDLE_CPU_S = 0.0008


async def wait_for_idle(min_sleep: float = 0.0, max_sleep: float = 1.0) -> None:
    """In place of `textual._wait.wait_for_idle`."""
    app = active_app.get()
    begun = monotonic()
    while monotonic() - begun < max_sleep:
        worked, rested = process_time(), _threads_rest()
        await asyncio.sleep(PAUSE_S)
        if rested and process_time() - worked < IDLE_CPU_S and monotonic() - begun >= min_sleep and _threads_rest():
            pumps = [app, *app._registry]
            if all(pump._message_queue.empty() for pump in pumps):
                return


def _threads_rest() -> bool:
    """Whether the loop's threads have nothing to do."""
    threads: Any = getattr(asyncio.get_running_loop(), "_default_executor", None)
    return threads is None or (threads._work_queue.empty() and threads._idle_semaphore._value >= len(threads._threads))
