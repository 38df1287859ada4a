"""The feed over HTTP: in order, resumable, honest about what was lost, and no burden for the gateway."""

from __future__ import annotations

import asyncio
import time

import pytest

from proxy_core.api import events
from proxy_core.control.feed import Feed
from tests.luthien_tui.fake_plane import FakePlane, make_row
from tests.proxy_core.api.control_port import TOKEN, ControlPort, control_port, following


async def test_new_events_come_as_they_happen(control: ControlPort) -> None:
    control.plane.add(make_row(1))
    async with following(control.url, TOKEN) as reader:
        hello = await reader.next()
        assert (hello.event, hello.id, hello.data["sequence"]) == ("hello", "2", 2)
        assert hello.data["started_at"] == control.plane.gateway.started_at
        row = control.plane.add(make_row(2), "started")
        first = await reader.next()
        assert (first.event, first.id, first.data["sequence"]) == ("started", "3", 3)
        assert first.data["row"]["transaction_id"] == row.transaction_id
        assert first.data["row"]["model"] == "gpt-5.4-mini"
        control.plane.feed.publish("held", row, "hold-1")
        held = await reader.next()
        assert (held.event, held.data["note"]) == ("held", "hold-1")


async def test_a_change_of_control_concerns_no_transaction(control: ControlPort) -> None:
    async with following(control.url, TOKEN, "?filter=model:none") as reader:
        await reader.next()
        control.plane.add(make_row(1))
        await control.ask("PATCH", "/api/policies/strip_secrets", {"mode": "off"}, headers={"x-luthien-operator": "ann"})
        changed = await reader.next()
        assert changed.event == "control_changed"
        assert changed.data["row"] is None
        assert changed.data["note"] == "policy strip_secrets by ann"


async def test_a_reader_goes_on_where_it_was(control: ControlPort) -> None:
    for number in range(10):
        control.plane.add(make_row(number), "finished")
    async with following(control.url, TOKEN, "?after=0") as reader:
        taken = await reader.take(5)
    async with following(control.url, TOKEN, last=taken[-1].id) as reader:
        rest = await reader.take(7)
    assert [one.data["sequence"] for one in (taken[1:] + rest[1:])] == list(range(1, 11))
    async with following(control.url, TOKEN, "?after=9", last="3") as reader:
        assert (await reader.take(2))[1].id == "4", "what the EventSource says itself is newer than the address"


async def test_what_was_lost_is_counted(control: ControlPort) -> None:
    control.plane.feed = Feed(capacity=100)
    for number in range(250):
        control.plane.add(make_row(number), "finished")
    async with following(control.url, TOKEN, "?after=10") as reader:
        _, lost, first = await reader.take(3)
    assert (lost.event, lost.data, lost.id) == ("lost", {"lost": 140}, "150")
    assert first.data["sequence"] == 151


async def test_a_number_of_an_earlier_life_begins_anew(control: ControlPort) -> None:
    control.plane.add(make_row(1), "finished")
    async with following(control.url, TOKEN, last="5000") as reader:
        assert [one.event for one in await reader.take(2)] == ["hello", "finished"]


@pytest.mark.parametrize("last", ["-1", "x", "1" * 60, "٣", ""])
async def test_an_id_that_is_none_of_ours(control: ControlPort, last: str) -> None:
    async with following(control.url, TOKEN, last=last) as reader:
        assert (await reader.next()).event == "hello"


async def test_silence_is_filled(control: ControlPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    async with following(control.url, TOKEN) as reader:
        await reader.next()
        await asyncio.sleep(0.3)
        control.plane.add(make_row(1), "finished")
        await reader.next()
    assert len(reader.comments) >= 2


async def test_a_filter_that_cannot_be_read(control: ControlPort) -> None:
    answer = await control.ask("GET", "/api/events?filter=nonsense:1")
    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"] == ["filter"]


async def test_a_reader_that_reads_nothing_burdens_nobody(control: ControlPort) -> None:
    """It is given what the socket takes, and later told what it missed; publishing stays as quick as ever."""
    control.plane.feed = Feed(capacity=500)
    async with control.connect() as sleeper:
        sleeper.request("GET", "/api/events?after=0", headers={"authorization": f"Bearer {TOKEN}"})
        await sleeper.head()
        rows = [make_row(number, preview="x" * 100) for number in range(100)]
        longest = 0.0
        for _ in range(300):
            begun = time.thread_time()
            for row in rows:
                control.plane.feed.publish("finished", row)
            longest = max(longest, time.thread_time() - begun)
            await asyncio.sleep(0)
        assert longest < 0.05
        async with following(control.url, TOKEN) as reader:
            await reader.next()
            control.plane.add(make_row(1), "finished")
            assert (await reader.next()).event == "finished"


async def test_there_is_an_end_of_readers(control: ControlPort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_READERS", 1)
    async with following(control.url, TOKEN) as reader:
        await reader.next()
        assert (await control.ask("GET", "/api/events")).status == 503
    async with asyncio.timeout(30):
        while True:
            async with following(control.url, TOKEN) as reader:
                if reader.status == 200:
                    break
            await asyncio.sleep(0.01)


async def test_streams_end_with_the_server() -> None:
    async with control_port(FakePlane()) as control, control.connect() as client:
        client.request("GET", "/api/events", headers={"authorization": f"Bearer {TOKEN}"})
        await client.head()
        begun = time.monotonic()
        await control.server.close()
        assert time.monotonic() - begun < 5.0
