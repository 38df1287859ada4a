"""Interceptors on real traffic: what they see, and that traffic never sees them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy_core import logs
from proxy_core.errors import ConfigurationError
from proxy_core.interceptors import frames
from proxy_core.interceptors import recording_format as recording
from proxy_core.interceptors.process import Worker
from proxy_core.interceptors.surroundings import Surroundings
from proxy_core.interceptors.worker import CLOSE_S
from proxy_core.settings import InterceptorSettings
from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, EVERY, MESSAGES, Asking, name_of
from tests.gateway.test_secrets_stay_out import assert_absent, use
from tests.gateway_fixtures import RunningGateway
from tests.proxy_core.interceptors.collector import Collector
from tests.proxy_core.interceptors.installed import install
from tests.proxy_core.interceptors.traffic import running_for


def everything(folder: Path, url: str = "http://127.0.0.1:9/none") -> list[dict[str, Any]]:
    """All types, writing below `folder`."""
    return [
        {"type": "printer", "config": {"log_body": True}},
        {"type": "message_logger", "config": {"directory": str(folder / "messages")}},
        {"type": "event_recorder", "config": {"output_dir": str(folder / "events")}},
        {"type": "event_recorder", "config": {"output_dir": str(folder / "documents"), "file_format": "json"}},
        {"type": "http_recorder", "config": {"output_dir": str(folder / "recordings")}},
        {"type": "trace", "config": {"url": url, "batch_interval_s": 0.02, "timeout_s": 0.2}},
        {"type": "live_trace"},
    ]


def records(folder: Path) -> list[recording.Record]:
    files = sorted((folder / "recordings").glob("*.jsonl"))
    return [recording.read_record(line) for file in files for line in file.read_bytes().splitlines()]


def events(folder: Path) -> list[Any]:
    files = sorted((folder / "events").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()[1:]]


async def until(holds: Callable[[], bool], what: str = "waited in vain") -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.005)
    assert holds(), what


async def metric(gateway: RunningGateway, name: str, kind: str) -> float:
    page = (await gateway.ask("GET", "/metrics")).body.decode()
    found = re.search(rf'^luthien_interceptor_{name}_total{{type="{kind}"}} (\S+)$', page, re.MULTILINE)
    assert found is not None, page
    return float(found[1])


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


@pytest.mark.parametrize("asking", EVERY, ids=name_of)
async def test_every_dialect_is_seen_and_answered_to_the_byte(
    start_gateway: StartGateway, tmp_path: Path, asking: Asking, collector: Collector
) -> None:
    plain = await start_gateway()
    watched = await start_gateway(interceptors=everything(tmp_path, collector.url))
    for stream in (False, True):
        ask = ("POST", asking.path, asking.bytes(stream=stream), {**asking.headers, "x-cylestio-tags": "team:sea"})
        answers = [await gateway.ask(*ask) for gateway in (plain, watched)]
        assert len({(one.status, re.sub(rb"_\d+\b|req_\d+", b"", one.body)) for one in answers}) == 1
    await watched.stop()
    told = events(tmp_path)
    starts = [one for one in told if one["name"] == "llm.call.start"]
    finishes = [one for one in told if one["name"] == "llm.call.finish"]
    assert len(starts) == len(finishes) == 2
    for one in finishes:
        assert "Paris" in json.dumps(one["attributes"]["llm.response.content"])
        assert one["attributes"]["session.tags"] == {"team": "sea"}
    counts = [one["attributes"]["llm.usage.total_tokens"] for one in finishes]
    assert None not in counts or asking is CHAT  # its stream has a usage only where it is asked for
    seen = records(tmp_path)
    assert [type(one) for one in seen] == [recording.Request, recording.Response] * 2
    for request, response in zip(seen[::2], seen[1::2], strict=True):
        assert isinstance(request, recording.Request) and isinstance(response, recording.Response)
        assert request.transaction_id == response.transaction_id
        assert recording.bytes_of(request.body) in (asking.bytes(), asking.bytes(stream=True))
    assert isinstance(seen[3], recording.Response)
    assert re.sub(rb"_\d+\b", b"", recording.bytes_of(seen[3].body)) == re.sub(rb"_\d+\b", b"", answers[1].body)
    messages = (tmp_path / "messages" / "message_log.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["direction"] for line in messages] == ["request", "response"] * 2
    assert len({one["span_id"] for one in collector.events if one["name"] == "llm.call.finish"}) == 2
    assert {one["name"] for one in collector.events} >= {"session.start", "session.end"}
    for path in tmp_path.rglob("*"):
        if path.parts[len(tmp_path.parts)] in ("messages", "events", "documents", "recordings"):
            assert path.stat().st_mode & 0o077 == 0


async def test_chunks_have_the_times_at_which_they_came(
    start_gateway: StartGateway, tmp_path: Path, upstream: FaultUpstream
) -> None:
    gateway = await start_gateway(interceptors=everything(tmp_path))
    upstream.faults.append(Fault(interval_s=0.1, drip=True))  # more pieces than the gateway times on its own
    answer = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True))
    await gateway.stop()
    response = records(tmp_path)[1]
    assert isinstance(response, recording.Response)
    assert len(response.chunks) > 64
    assert response.chunks[-1][0] == len(answer.body)
    pauses = [later[1] - earlier[1] for earlier, later in zip(response.chunks, response.chunks[1:], strict=False)]
    assert 8 <= sum(60 < pause < 1_000 for pause in pauses) <= 12, "the pauses between events, and no other"
    assert all(earlier[0] < later[0] for earlier, later in zip(response.chunks, response.chunks[1:], strict=False))


async def test_concurrent_transactions_stay_apart(start_gateway: StartGateway, tmp_path: Path) -> None:
    gateway = await start_gateway(interceptors=everything(tmp_path))
    asked = [CHAT.bytes(stream=number % 2 == 0, user=f"u-{number}") for number in range(60)]
    headers = [{"x-session-id": f"sess-{number}"} for number in range(60)]
    await asyncio.gather(*(gateway.ask("POST", CHAT.path, body, head) for body, head in zip(asked, headers, strict=True)))
    await gateway.stop()
    by_id: dict[str, list[recording.Record]] = {}
    for one in records(tmp_path):
        by_id.setdefault(one.transaction_id, []).append(one)
    assert len(by_id) == 60
    bodies = set()
    for request, response in by_id.values():
        assert isinstance(request, recording.Request) and isinstance(response, recording.Response)
        bodies.add(recording.bytes_of(request.body))
        assert response.headers["content-type"].startswith("text/event-stream" if request.is_streaming else "application/json")
    assert bodies == set(asked)
    per_session = {path.stem: path.read_bytes().count(b'"name"') for path in (tmp_path / "events").iterdir()}
    assert per_session == {f"session_sess-{number}": 4 for number in range(60)}


async def test_what_fails_or_is_refused_is_seen_too(start_gateway: StartGateway, tmp_path: Path, upstream: FaultUpstream) -> None:
    gateway = await start_gateway(interceptors=everything(tmp_path))
    upstream.faults.append(Fault(status=429, headers=[("retry-after", "7")]))
    await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(), MESSAGES.headers)
    await gateway.ask("POST", "/nowhere", b"x")
    upstream.faults.append(Fault(reset_after=-1))
    await gateway.ask("POST", CHAT.path, CHAT.bytes())
    upstream.faults.append(Fault(stall_after=2))
    async with gateway.connect() as client:
        client.request("POST", CHAT.path, CHAT.bytes(stream=True))
        await upstream.arrived(3)
        await gateway.row_when(lambda row: row.model == "gpt-4o-mini")
    await gateway.row_when(lambda row: row.outcome == "cancelled")
    await gateway.stop()
    ends = [one for one in records(tmp_path) if not isinstance(one, recording.Request)]
    told = [(one.facts.outcome, getattr(one, "status_code", None)) for one in ends if one.facts]
    assert told[:3] == [("error", 429), ("refused", 404), ("error", 502)]
    assert told[3][0] == "cancelled"
    errors = {one["attributes"]["error.type"] for one in events(tmp_path) if one["name"] == "llm.call.error"}
    assert {"rate_limit_error", "cancelled"} <= errors
    names = [one["name"] for one in events(tmp_path)]
    assert names.count("llm.call.start") == names.count("llm.call.error") == 3


async def test_no_interceptor_writes_a_key(
    start_gateway: StartGateway,
    upstream: FaultUpstream,
    tmp_path: Path,
    collector: Collector,
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = "collector-key-CANARYtrace-0123456789"
    interceptors = everything(tmp_path / "out", collector.url)
    interceptors[5]["config"]["access_key"] = secret
    root = logging.getLogger()
    before = root.handlers[:]
    logs.configure("INFO", logs.LogRing(), stderr=True, file=None)
    try:
        gateway = await start_gateway(interceptors=interceptors)
        await use(gateway, upstream, pasted=True)
        page = (await gateway.ask("GET", "/config")).body
        await gateway.stop()
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        for handler in before:
            root.addHandler(handler)
    assert secret.encode() not in page
    written = b"\n".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert written.count(b"\n") > 200
    assert_absent("a file of an interceptor", written)
    assert_absent("the collector", b"\n".join(collector.bodies))
    assert len(collector.events) > 50
    printed = capfd.readouterr().err
    assert "-> POST /v1/chat/completions" in printed
    assert "\x1b" not in printed
    assert_absent("stderr", printed.encode())
    assert secret not in printed and secret.encode() not in written


UNTOUCHED_S = 5.0
"""Of a request: half of what a collector is waited for, and far more than a busy machine takes."""


async def rates(gateway: RunningGateway, count: int) -> float:
    """Slowest of some requests, in seconds; all must be answered."""
    slowest = 0.0
    for number in range(count):
        began = time.perf_counter()
        answer = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=number % 2 == 0))
        slowest = max(slowest, time.perf_counter() - began)
        assert answer.status == 200
    return slowest


async def test_a_full_disk_costs_records_only(start_gateway: StartGateway, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        gateway = await start_gateway(interceptors=everything(disk))
        assert await rates(gateway, 60) < UNTOUCHED_S
        await until(lambda: os.statvfs(disk).f_bavail < 3)
        assert await rates(gateway, 20) < UNTOUCHED_S
        for kind in ("http_recorder", "event_recorder", "message_logger"):
            async with asyncio.timeout(5):
                while not (await metric(gateway, "dropped", kind) and await metric(gateway, "errors", kind)):
                    await asyncio.sleep(0.02)
        assert len(await gateway.rows()) == 80
        await gateway.stop()
        for path in disk.rglob("*.jsonl"):
            for line in path.read_bytes().splitlines():
                json.loads(line)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


async def test_a_folder_that_cannot_be_written_costs_records_only(start_gateway: StartGateway, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    gateway = await start_gateway(interceptors=everything(tmp_path / "out"))
    assert await rates(gateway, 20) < UNTOUCHED_S
    await gateway.stop()
    assert (tmp_path / "out").is_file()


@pytest.mark.parametrize("trouble", ["refuses", "stalls", "answers 500"])
async def test_a_dead_collector_never_touches_traffic(
    start_gateway: StartGateway, tmp_path: Path, collector: Collector, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = collector.url
    if trouble == "stalls":
        collector.go_on.clear()
    elif trouble == "answers 500":
        collector.status = 500
    else:
        with Collector() as gone:
            url = gone.url
    gateway = await start_gateway(interceptors=everything(tmp_path, url))
    assert await rates(gateway, 20) < UNTOUCHED_S
    if trouble != "refuses":
        await until(lambda: collector.asked > 0)
    began = time.monotonic()
    if trouble == "answers 500":
        await gateway.restart()
        collector.status = 200
        # At least once: on a busy machine an answer may come too late to be believed.
        await until(lambda: len({one["span_id"] for one in collector.events if one["name"] == "llm.call.finish"}) == 20)
        await until(lambda: not list((gateway.data_dir / "spool").rglob("trace-*/*.jsonl")))
        return
    await gateway.stop()
    assert time.monotonic() - began < CLOSE_S
    assert "did not end" not in caplog.text
    spooled = b"".join(path.read_bytes() for path in (gateway.data_dir / "spool").rglob("trace-*/*.jsonl"))
    assert spooled.count(b'"llm.call.finish"') == 20


NUISANCE = """
def begun(self, begun: Begun) -> None:
    begun.headers.clear()
    raise RuntimeError("broken")

def flush(self, now: float) -> None:
    raise SystemExit("broken too")
"""


async def test_one_that_misbehaves_is_counted_and_nobody_else_notices(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path, "nuisance", NUISANCE)
    recorder = {"type": "http_recorder", "config": {"output_dir": str(tmp_path / "recordings")}}
    gateway = await start_gateway(interceptors=[{"type": "nuisance"}, recorder])
    assert await rates(gateway, 10) < UNTOUCHED_S
    await until(lambda: (tmp_path / "recordings").exists() and len(records(tmp_path)) == 20)
    async with asyncio.timeout(10):
        while await metric(gateway, "events", "http_recorder") < 20:
            await asyncio.sleep(0.02)
    assert await metric(gateway, "errors", "nuisance") >= 10
    assert await metric(gateway, "dropped", "http_recorder") == 0


async def test_one_that_takes_its_process_down_costs_records_only(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is started again, and what began before is told of whole."""
    body = """
    def begun(self, begun: Begun) -> None:
        if begun.model == "fatal":
            os._exit(7)
    """
    install(monkeypatch, tmp_path, "fatal", body)
    recorder = {"type": "http_recorder", "config": {"output_dir": str(tmp_path / "recordings")}}
    gateway = await start_gateway(interceptors=[{"type": "fatal"}, recorder])
    assert await rates(gateway, 4) < UNTOUCHED_S
    await until(lambda: (tmp_path / "recordings").exists() and len(records(tmp_path)) == 8)
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(model="fatal"))).status == 200

    async def is_back() -> bool:
        assert (await gateway.ask("POST", CHAT.path, CHAT.bytes())).status == 200
        return len(records(tmp_path)) > 8

    async with asyncio.timeout(20):
        while not await is_back():
            await asyncio.sleep(0.05)
    assert await metric(gateway, "dropped", "fatal") >= 1
    await gateway.stop()
    seen = records(tmp_path)
    whole = {one.transaction_id for one in seen if isinstance(one, recording.Response)}
    assert whole == {one.transaction_id for one in seen if isinstance(one, recording.Request)}


async def test_what_it_prints_is_in_the_log(
    start_gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    body = """
    def begun(self, begun: Begun) -> None:
        print("hello from", begun.model, flush=True)
    """
    install(monkeypatch, tmp_path, "talker", body)
    gateway = await start_gateway(interceptors=[{"type": "talker"}])
    await gateway.ask("POST", CHAT.path, CHAT.bytes())
    await until(lambda: "an interceptor printed: hello from gpt-4o-mini" in caplog.text)


async def test_its_process_ends_with_a_killed_gateway_and_keeps_what_it_was_given(tmp_path: Path) -> None:
    """Nobody closes anything here: the pipe breaks as it does when the gateway is killed."""
    surroundings = Surroundings(data_dir=tmp_path)
    wanted = [InterceptorSettings(type="http_recorder", config={"output_dir": str(tmp_path / "recordings")})]
    worker = Worker(kinds=1)
    os.write(worker.pipe, frames.pack_task((wanted, surroundings, logging.INFO)))
    for number in range(3):
        running, intent, hashes = running_for("chat", {"model": "m", "messages": []}, number=number)
        os.writev(worker.pipe, frames.pack_began(intent, running.glance, hashes))
    os.write(worker.pipe, frames.pack_began(intent, running.glance, hashes)[0][:20])
    assert await asyncio.to_thread(worker.finish, 20.0)
    assert worker.status == 0
    assert len(records(tmp_path)) == 3
    assert worker.done == 4, "the half one is counted too"


async def test_a_wrong_configuration_does_not_start(start_gateway: StartGateway) -> None:
    with pytest.raises(ConfigurationError, match=r"interceptors\[0\].type: .*did you mean 'printer'"):
        await start_gateway(interceptors=[{"type": "printr"}])


async def test_with_a_screen_lines_go_to_its_log(start_gateway: StartGateway, capfd: pytest.CaptureFixture[str]) -> None:
    ring = logs.LogRing()
    root = logging.getLogger()
    before = root.handlers[:]
    logs.configure("WARNING", ring, stderr=False, file=None)
    try:
        gateway = await start_gateway(interceptors=[{"type": "printer"}])
        hostile = [{"role": "user", "content": "x"}]
        await gateway.ask("POST", CHAT.path, CHAT.bytes(model="m\x1b[2J\x07evil", messages=hostile))
        await gateway.stop()
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
        for handler in before:
            root.addHandler(handler)
    lines = [line.message for line in ring.since(0) if line.logger == "luthien.printer"]
    assert [line[:2] for line in lines if not line.startswith("   ")] == ["->", "<-"]
    assert "m\\e[2J\\x07evil" in lines[0]
    assert capfd.readouterr().err == ""
