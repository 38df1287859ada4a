"""Coroutines that are run step by step: begun where no task may wait, finished where one can.

Most policies never wait, so their work is done by one `send(None)` and costs no task. One that does wait gives the future
it waits for; `resumed` goes on from there inside a task. Nobody outlasts a deadline: work that goes on waiting after it was
cancelled is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any

CLEANUP_S = 1.0
"""Time that cancelled work has for its last words."""


class Cut(BaseException):
    """Ends work that went on although it was cancelled. Nobody should catch it."""


class _Resumed:
    __slots__ = ("pending", "stops", "work")

    def __init__(self, work: Coroutine[Any, Any, Any], pending: Any, stops: Callable[[Any], bool]) -> None:
        self.work = work
        self.pending = pending
        self.stops = stops

    def __await__(self) -> Generator[Any, Any, Any]:
        work, pending = self.work, self.pending
        cancelled: BaseException | None = None
        while not self.stops(pending):
            try:
                if cancelled is None:
                    yield pending
                else:
                    yield from _until(pending, cancelled)
            except GeneratorExit:
                _cut(work)
                raise
            except BaseException as error:  # a cancellation from outside: the work may clean up, and no more
                if cancelled is not None:
                    _cut(work)
                    raise cancelled from None
                cancelled = error
                try:
                    pending = work.throw(error)
                except StopIteration as done:
                    return done.value
            else:
                try:
                    pending = work.send(None)
                except StopIteration as done:
                    return done.value
        return None


def _cut(work: Coroutine[Any, Any, Any]) -> None:
    """End work that does not listen. GeneratorExit, and `close`, would leave nested steps of generators half done."""
    with suppress(BaseException):
        work.throw(Cut())


def _until(pending: Any, cancelled: BaseException) -> Generator[Any, Any, None]:
    """Wait for what cancelled work waits for, but not long. Raises `cancelled` where it takes longer."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(CLEANUP_S, _end, over, False)
    if pending is None:
        loop.call_soon(_end, over, True)
    else:
        pending._asyncio_future_blocking = False
        pending.add_done_callback(lambda _: _end(over, True))
    try:
        in_time = yield from over
    finally:
        timer.cancel()
    if not in_time:
        raise cancelled


def _end(over: asyncio.Future[bool], in_time: bool) -> None:
    if not over.done():
        over.set_result(in_time)


def _never(pending: Any) -> bool:
    return False


async def resumed(work: Coroutine[Any, Any, Any], pending: Any, stops: Callable[[Any], bool] = _never) -> Any:
    """Await the rest of `work`, which waits for `pending`; stop early where it yields something for which `stops` holds."""
    return await _Resumed(work, pending, stops)


async def stepped(work: Coroutine[Any, Any, Any]) -> Any:
    """Await `work` so that it cannot outlast a cancellation."""
    try:
        pending = work.send(None)
    except StopIteration as done:
        return done.value
    return await resumed(work, pending)
