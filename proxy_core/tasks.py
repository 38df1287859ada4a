"""The one way to start a background task: it keeps a reference, has a name, and its death is logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
log = logging.getLogger(__name__)
_running: set[asyncio.Task[Any]] = set()


def spawn(coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Start `coroutine` on the running loop. A raised exception is logged once and stays on the task for whoever awaits it."""
    task = asyncio.create_task(coroutine, name=name)  # noqa: TID251 - this is the one place
    _running.add(task)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task %s died: %r", task.get_name(), error, exc_info=error)
