"""What http_recorder recorded replays to the same verdicts and bytes, and a recording of the replay is the recording."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy_core.interceptors.recording_format import Request, Response, read_record
from proxy_core.replay.exchanges import Recording
from proxy_core.replay.preparing import offline_settings
from proxy_core.replay.reading import read_recordings
from proxy_core.replay.replaying import Pace, Replay, Replayed
from proxy_core.settings import Settings
from tests.fault_upstream import FaultUpstream
from tests.gateway_fixtures import RunningGateway, running_gateway, settings_for
from tests.mixed_traffic import POLICIES, mixed_traffic
from tests.raw_http import RawResponse

TIMES = {"timestamp", "start_time", "end_time", "duration_ms", "session_id", "url", "at_ms", "held_ms"}
"""What no two runs share."""


def recorder(folder: Path) -> list[dict[str, Any]]:
    return [{"type": "http_recorder", "config": {"output_dir": str(folder)}}]


async def record(upstream: FaultUpstream, folder: Path, count: int) -> tuple[Settings, list[RawResponse]]:
    """Mixed traffic through a gateway that records it under `folder`."""
    settings = settings_for(upstream.url, **POLICIES, interceptors=recorder(folder / "recorded"))
    async with running_gateway(settings, folder / "recording") as gateway:
        answers = await mixed_traffic(gateway, count)
        await settled(gateway, count)
    return settings, answers


async def settled(gateway: RunningGateway, count: int) -> None:
    assert len(await gateway.plane.history(count + 1)) == count


async def replay(settings: Settings, folder: Path, recording: Recording, pace: Pace | None = None) -> list[Replayed]:
    folder.mkdir()
    async with Replay(settings, folder, pace=pace) as running:
        return [one async for one in running.run(recording.exchanges)]


async def replays_to_the_same(upstream: FaultUpstream, folder: Path, count: int) -> None:
    settings, answers = await record(upstream, folder, count)
    recording = read_recordings([folder / "recorded"])
    assert not recording.problems
    assert len(recording.exchanges) == count
    outcomes = Counter(one.facts.outcome for one in recording.exchanges if one.facts is not None)
    assert set(outcomes) >= {"ok", "error", "truncated", "refused"}, outcomes
    asked = len(upstream.exchanges)

    again = offline_settings(settings).model_copy(
        update={"interceptors": settings_for("http://unused", interceptors=recorder(folder / "again")).interceptors}
    )
    found = await replay(again, folder / "replaying", recording)

    assert {one.exchange.name: one.differences for one in found if one.differences} == {}
    assert [(one.exchange.name, one.skipped, one.notes) for one in found if one.skipped or one.notes] == []
    assert len(upstream.exchanges) == asked, "nothing may reach an upstream"
    by_id = {answer.header("x-luthien-transaction-id"): answer for answer in answers}
    for one in found:
        assert one.outcome is not None
        assert one.outcome.answer is not None
        client = by_id[one.transaction_id]
        assert (one.outcome.answer.status, one.outcome.answer.body) == (client.status, client.body)
    assert list(unlike(records(folder / "recorded"), records(folder / "again"))) == []


def records(folder: Path) -> dict[str, list[Any]]:
    """The records of each transaction, without what no two runs share."""
    found: dict[str, list[Any]] = {}
    for file in sorted(folder.iterdir()):
        for line in file.read_bytes().splitlines():
            record = json.loads(line)
            found.setdefault(record["transaction_id"], []).append(without(record))
    return found


def unlike(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two recordings differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in {**one, **other}:
            yield from unlike(one.get(name, "nothing"), other.get(name, "nothing"), f"{path}.{name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from unlike(left, right, f"{path}[{number}]")
    elif one != other:
        yield f"{path}: {one!r} → {other!r}"


def without(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {name: without(one) for name, one in value.items() if name not in TIMES}
        if "chunks" in kept:
            changed = kept["upstream"] is not None and kept["upstream"]["body"] is not None
            kept["chunks"] = [] if changed else [end for end, _ in kept["chunks"]]
        if kept.get("type") == "request":
            kept["headers"] = {key: one for key, one in kept["headers"].items() if key not in ("host", "content-length")}
        return kept
    return [without(one) for one in value] if isinstance(value, list) else value


async def test_a_recording_replays_to_the_same_verdicts_and_bytes(upstream: FaultUpstream, tmp_path: Path) -> None:
    await replays_to_the_same(upstream, tmp_path, 90)


async def test_overlapping_as_they_did_they_replay_to_the_same(upstream: FaultUpstream, tmp_path: Path) -> None:
    settings, _ = await record(upstream, tmp_path, 60)
    recording = read_recordings([tmp_path / "recorded"])

    found = await replay(offline_settings(settings), tmp_path / "replaying", recording, Pace(speed=3.0))

    assert len(found) == 60
    assert {one.exchange.name: one.differences for one in found if one.differences} == {}


@pytest.mark.slow
async def test_a_recording_of_500_transactions_replays_to_the_same(upstream: FaultUpstream, tmp_path: Path) -> None:
    await replays_to_the_same(upstream, tmp_path, 500)


async def test_streams_replay_as_streams_at_their_recorded_pace(upstream: FaultUpstream, tmp_path: Path) -> None:
    settings, _ = await record(upstream, tmp_path, 25)
    recording = read_recordings([tmp_path / "recorded"])
    stream = next(one for one in recording.exchanges if one.upstream is not None and len(one.upstream.chunks) > 3)
    assert stream.upstream is not None
    stream.upstream.chunks = [(end, 40.0 * number) for number, (end, _) in enumerate(stream.upstream.chunks)]
    recording.exchanges = [stream]

    (slow,) = await replay(offline_settings(settings), tmp_path / "slow", recording, Pace(speed=2.0))
    (fast,) = await replay(offline_settings(settings), tmp_path / "fast", recording)

    assert slow.outcome is not None
    assert fast.outcome is not None
    assert slow.outcome.answer is not None
    assert fast.outcome.answer is not None
    count = len(stream.upstream.chunks)
    assert len(slow.outcome.answer.chunks) > count // 2
    assert (slow.outcome.answer.duration_ms or 0) >= 20.0 * (count - 1)
    assert len(fast.outcome.answer.chunks) > 1
    assert (fast.outcome.answer.duration_ms or 0) < (slow.outcome.answer.duration_ms or 0)
    assert slow.outcome.answer.body == fast.outcome.answer.body
    assert not slow.differences + fast.differences


async def test_requests_and_answers_keep_their_ids_and_times_in_the_recording(upstream: FaultUpstream, tmp_path: Path) -> None:
    await record(upstream, tmp_path, 30)

    lines = [read_record(line) for file in (tmp_path / "recorded").iterdir() for line in file.read_bytes().splitlines()]

    asked = {one.transaction_id for one in lines if isinstance(one, Request)}
    told = [one for one in lines if isinstance(one, Response)]
    assert len(asked) == len(told) == 30
    assert asked == {one.transaction_id for one in told}
    assert any(len(one.chunks) > 3 and one.chunks == sorted(one.chunks) for one in told)
