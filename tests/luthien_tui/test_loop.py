"""The shared loop: nobody changes how tasks start, and the collector runs when it was told to."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from itertools import count, repeat

import pytest

from luthien_tui import loop as shared
from luthien_tui.loop import QuietCollector, new_loop


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The generations collected, oldest first; the real collector stays as it is."""
    seen: list[int] = []
    monkeypatch.setattr(shared.gc, "collect", lambda generation=2: seen.append(generation) or 0)
    monkeypatch.setattr(shared, "YOUNG_EVERY_S", 0.001)
    monkeypatch.setattr(shared, "resident_bytes", lambda: 1_000)
    yield seen
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize("make", [new_loop, shared._PlainLoop])
def test_no_task_factory_is_taken(make: type[asyncio.AbstractEventLoop]) -> None:
    loop = make()
    try:
        loop.set_task_factory(lambda *arguments, **more: pytest.fail("used"))

        async def answer() -> int:
            return 1

        assert loop.run_until_complete(asyncio.wait_for(answer(), 1)) == 1
    finally:
        loop.close()


async def until(condition: object, seen: list[int]) -> None:
    while not condition():  # type: ignore[operator]
        await asyncio.sleep(0)
        if len(seen) > 10_000:
            raise AssertionError("it never came")


async def test_young_garbage_alone_while_busy_and_all_of_it_once_when_idle(collections: list[int]) -> None:
    activity = iter(zip(repeat(0), count(1)))  # none at the moment it is looked at, but more each time
    busy = True
    collector = QuietCollector(asyncio.get_running_loop(), lambda: next(activity) if busy else (0, 5))
    collector.start()
    assert not gc.isenabled()
    assert collections == [2]
    await until(lambda: len(collections) > 20, collections)
    assert set(collections[1:]) == {1}
    busy = False
    await until(lambda: 2 in collections[1:], collections)
    after = len(collections)
    await until(lambda: len(collections) > after + 20, collections)
    assert set(collections[after:]) == {1}
    collector.stop()
    assert gc.isenabled()
    stopped = len(collections)
    await asyncio.sleep(0.02)
    assert len(collections) == stopped


async def test_all_of_it_when_memory_has_grown(collections: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    collector = QuietCollector(asyncio.get_running_loop(), lambda: (1, 1))
    collector.start()
    await until(lambda: len(collections) > 5, collections)
    monkeypatch.setattr(shared, "resident_bytes", lambda: 1_000 + shared.GROWTH_BYTES + 1)
    before = len(collections)
    await until(lambda: 2 in collections[before:], collections)
    collector.stop()


def test_resident_memory_is_plausible() -> None:
    assert 5_000_000 < shared.resident_bytes() < 5_000_000_000
