"""Making what is large while traffic goes on: imports and routes, in a thread that gives way to the loop."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from typing import TypeVar

SWITCH_S = 0.0005
"""The building thread gives way to the loop ten times as often as usual."""
_Built = TypeVar("_Built")


async def built_beside_traffic(build: Callable[[], _Built]) -> _Built:
    """What `build` makes, without a collection of the whole heap in the middle of it."""
    interval, collects = sys.getswitchinterval(), gc.isenabled()
    gc.disable()
    sys.setswitchinterval(SWITCH_S)
    try:
        return await asyncio.to_thread(build)
    finally:
        sys.setswitchinterval(interval)
        if collects:
            gc.enable()
        else:
            gc.freeze()  # whoever collects in Python's place need not look at all this again
