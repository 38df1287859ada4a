"""Events on their way to a collector that takes them, or does not."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy_core.interceptors import trace
from proxy_core.interceptors.events import Event
from proxy_core.interceptors.outbox import Outbox
from proxy_core.interceptors.surroundings import Surroundings
from proxy_core.interceptors.trace import Trace, TraceConfig
from tests.proxy_core.interceptors.collector import Collector
from tests.proxy_core.interceptors.waits import until


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(trace, "LAST_WAIT_S", 0.05)
    monkeypatch.setattr(trace, "LAST_TRY_S", 0.3)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


def made(url: str, folder: Path, **config: Any) -> Trace:
    return Trace(TraceConfig(url=url, batch_interval_s=0.02, **config), Surroundings(data_dir=folder))


def event(number: int) -> Event:
    return Event(
        timestamp="t", trace_id="0" * 32, span_id="0" * 16, name=f"e{number}", agent_id="a", session_id="s", attributes={}
    )


def spooled(folder: Path) -> list[Path]:
    return list(folder.rglob("*.jsonl"))


def tell(one: Trace, first: int, count: int) -> None:
    for number in range(first, first + count):
        one.events([event(number)])
    if one._client is None:
        one.start()


def numbers(collector: Collector) -> list[int]:
    return [int(one["name"][1:]) for one in collector.events]


def test_events_come_in_batches_with_the_key(collector: Collector, tmp_path: Path) -> None:
    one = made(collector.url, tmp_path, access_key="secret-key", headers={"x-team": "sea"}, batch_size=10)
    tell(one, 0, 25)
    until(lambda: len(numbers(collector)) == 25)
    one.close()
    assert numbers(collector) == list(range(25))
    assert max(len(json.loads(body)) for body in collector.bodies) == 10
    assert collector.headers[0]["authorization"] == "Bearer secret-key"
    assert collector.headers[0]["x-team"] == "sea"
    assert collector.headers[0]["content-type"] == "application/json"
    assert one.dropped == 0
    assert not spooled(tmp_path)


@pytest.mark.parametrize(("form", "posts"), [("lines", 1), ("single", 3)])
def test_other_ways_to_say_a_batch(collector: Collector, tmp_path: Path, form: str, posts: int) -> None:
    one = made(collector.url, tmp_path, send=form)
    tell(one, 0, 3)
    until(lambda: b"".join(collector.bodies).count(b'"name"') == 3)
    one.close()
    assert len(collector.bodies) <= 3
    if form == "single":
        assert len(collector.bodies) == posts
    assert [json.loads(line)["name"] for body in collector.bodies for line in body.splitlines()] == ["e0", "e1", "e2"]


@pytest.mark.parametrize("trouble", [500, 503, 401, 429, "away", "stalled"])
def test_a_collector_in_trouble_gets_everything_later_in_order(collector: Collector, tmp_path: Path, trouble: int | str) -> None:
    url = collector.url
    if trouble == "away":
        with Collector() as gone:
            url = gone.url
    elif trouble == "stalled":
        collector.go_on.clear()
    else:
        collector.status = int(trouble)
    one = made(url, tmp_path, batch_size=10, timeout_s=0.2)
    tell(one, 0, 15)
    until(lambda: any(path.suffix == ".jsonl" for path in tmp_path.rglob("*")), "events should wait on disk")
    tell(one, 15, 15)
    if trouble == "away":
        with Collector(gone.port) as collector:
            until(lambda: len(set(numbers(collector))) == 30)
            one.close()
    else:
        collector.status = 204
        collector.go_on.set()
        until(lambda: len(set(numbers(collector))) == 30)
        one.close()
    assert sorted(set(numbers(collector))) == list(range(30))
    assert one.dropped == 0
    assert not spooled(tmp_path)


def test_what_waits_survives_a_restart_and_is_private(collector: Collector, tmp_path: Path) -> None:
    collector.status = 500
    one = made(collector.url, tmp_path)
    tell(one, 0, 20)
    until(lambda: collector.asked > 0)
    one.close()
    (file,) = spooled(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    collector.status = 200
    again = made(collector.url, tmp_path)
    tell(again, 20, 1)
    until(lambda: len(numbers(collector)) == 21)
    again.close()
    assert numbers(collector) == list(range(21))


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system knows no such priority")
def test_it_sends_in_spare_time_unless_much_waits(collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    priorities: list[int] = []

    class Noting(Trace):
        def _post(self, client: httpx.Client, body: bytes, count: int) -> bool:
            priorities.append(os.sched_getscheduler(0))
            return super()._post(client, body, count)

    one = Noting(TraceConfig(url=collector.url, batch_size=10, batch_interval_s=0.02), Surroundings(data_dir=tmp_path))
    tell(one, 0, 10)
    until(lambda: len(numbers(collector)) == 10)
    assert priorities == [os.SCHED_IDLE]
    monkeypatch.setattr(trace, "MAX_IN_MEMORY", 60)
    collector.go_on.clear()
    tell(one, 10, 10)
    until(lambda: len(priorities) == 2)
    tell(one, 20, 100)
    collector.go_on.set()
    until(lambda: len(numbers(collector)) == 120)
    assert priorities[2] == os.SCHED_OTHER
    one.close()
    assert numbers(collector) == list(range(120))
    assert one.dropped == 0


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_refused_for_good_is_dropped_and_counted(collector: Collector, tmp_path: Path, status: int) -> None:
    collector.status = status
    one = made(collector.url, tmp_path, batch_size=5)
    tell(one, 0, 5)
    until(lambda: one.dropped == 5)
    collector.status = 200
    tell(one, 5, 5)
    until(lambda: len(numbers(collector)) == 5)
    one.close()
    assert numbers(collector) == [5, 6, 7, 8, 9]


def test_a_stalled_collector_does_not_hold_up_the_end(collector: Collector, tmp_path: Path) -> None:
    collector.go_on.clear()
    one = made(collector.url, tmp_path, timeout_s=30)
    tell(one, 0, 5)
    until(lambda: collector.asked > 0)
    began = time.monotonic()
    one.close()
    assert time.monotonic() - began < 2.0
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*.jsonl"))
    assert kept.count(b"\n") == 5


def test_the_spool_is_bounded_and_what_goes_is_counted(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "spool", max_bytes=1_000_000)
    outbox.open()
    line = b"x" * 999 + b"\n"
    for _ in range(2_000):
        outbox.put(line)
        if outbox.in_memory >= 200:
            outbox.take(100)
            outbox.failed()
    outbox.close()
    kept = sum(path.stat().st_size for path in spooled(tmp_path))
    assert kept <= 1_600_000
    assert outbox.dropped == 2_000 - kept // 1_000


def test_a_disk_that_takes_nothing_costs_events_only(collector: Collector, tmp_path: Path) -> None:
    collector.status = 500
    one = made(collector.url, tmp_path)
    tell(one, 0, 1)
    until(lambda: collector.asked > 0)
    (folder,) = (tmp_path / "spool").iterdir()
    until(lambda: bool(spooled(folder)))
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("a file in its place")
    tell(one, 1, 10)
    until(lambda: one.dropped > 0)
    collector.status = 200
    tell(one, 100, 1)
    until(lambda: 100 in numbers(collector))
    one.close()
    assert folder.is_file()


def test_processes_that_share_a_folder_have_a_spool_each(collector: Collector, tmp_path: Path) -> None:
    collector.status = 500
    both = [made(collector.url, tmp_path), made(collector.url, tmp_path)]
    for number, one in enumerate(both):
        tell(one, 10 * number, 10)
    until(lambda: collector.asked >= 2)
    for one in both:
        one.close()
    assert sorted(path.read_bytes().count(b"\n") for path in spooled(tmp_path)) == [10, 10]
    assert len({path.parent for path in spooled(tmp_path)}) == 2
    collector.status = 200
    alone = made(collector.url, tmp_path)
    tell(alone, 100, 1)
    until(lambda: len(numbers(collector)) == 21)
    alone.close()
    assert not spooled(tmp_path)
