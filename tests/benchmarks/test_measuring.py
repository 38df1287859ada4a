"""The measuring itself: what it sends, how it reads answers, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from benchmarks.figures import mean_of_ratios, percentile, spread_us
from benchmarks.machine import COMPILER, Cpus, stolen_s
from benchmarks.mock_upstream import converse
from benchmarks.pace import Load
from benchmarks.plain_client import Connection, question, request_bytes
from benchmarks.processes import BenchmarkError, Child
from benchmarks.report import target_table
from benchmarks.targets import judge

ANYWHERE = Cpus(None, None)


@pytest.fixture
async def python_upstream() -> AsyncIterator[int]:
    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def compiled_upstream(tmp_path: Path) -> Iterator[int]:
    if not COMPILER.path:
        pytest.skip("no C compiler")
    from benchmarks.ground import Ground

    with Ground(cpus=ANYWHERE) as ground:
        yield ground.upstream_port


def ask(port: int, shape: str) -> tuple[int, bytes]:
    with Connection(port) as connection:
        return connection.ask(request_bytes(shape, question(shape, stream=False)))


def stream(port: int, shape: str) -> list[tuple[bytes, float | None]]:
    with Connection(port) as connection:
        request = request_bytes(shape, question(shape, stream=True), x_mock_tokens=3, x_mock_gap_us=1000)
        return [(event.data, event.delay_us) for event in connection.events(request)]


@pytest.mark.parametrize("shape", ["openai", "anthropic"])
async def test_both_upstreams_answer_alike(python_upstream: int, compiled_upstream: int, shape: str) -> None:
    for port in (python_upstream, compiled_upstream):
        status, body = await asyncio.to_thread(ask, port, shape)
        assert status == 200
        assert b"A day's sail" in body
    ours = await asyncio.to_thread(stream, python_upstream, shape)
    theirs = await asyncio.to_thread(stream, compiled_upstream, shape)
    assert len(ours) == len(theirs) == {"openai": 5, "anthropic": 8}[shape]
    for (ours_data, ours_delay), (theirs_data, theirs_delay) in zip(ours, theirs, strict=True):
        assert (ours_delay is None) == (theirs_delay is None)
        if ours_delay is None:
            assert ours_data == theirs_data
        else:
            assert ours_data.partition(b"sent_us")[0] == theirs_data.partition(b"sent_us")[0]
            assert ours_delay >= 0
            assert theirs_delay is not None
            assert theirs_delay >= 0


async def test_an_open_load_keeps_its_rate_and_counts_from_when_a_request_was_due(python_upstream: int) -> None:
    request = request_bytes("openai", question("openai", stream=False))
    figures = await Load(python_upstream, [request], connections=8, rate=100).run(0.5)
    assert 45 <= figures["requests"] <= 51
    assert figures["bad_status"] == figures["broken"] == figures["unanswered"] == 0
    assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["max_us"]


async def test_a_lost_connection_is_counted_and_does_not_hang_the_load() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        request = request_bytes("openai", question("openai", stream=False))
        figures = await Load(server.sockets[0].getsockname()[1], [request], connections=4, rate=0).run(5)
    assert figures["broken"] == 4
    assert figures["requests"] == 0


def test_a_child_in_a_terminal_is_read_and_ended_with_its_descendants(tmp_path: Path) -> None:
    grandchild = "import subprocess,sys,time; subprocess.Popen([sys.executable,'-c','import time; time.sleep(60)']); "
    script = grandchild + "print('\\x1b[1mre\\x1b[0mady', flush=True); time.sleep(60)"
    with Child([sys.executable, "-c", script], tmp_path / "log", terminal=(80, 24)) as child:
        deadline = time.monotonic() + 10
        while "ready" not in child.screen_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "ready" in child.screen_text()
        family = child.tree()
        assert len(family) == 2
        assert (child.rss_mb() or 0) > 1
    assert not child.alive
    deadline = time.monotonic() + 10
    while any(runs(pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(runs(pid) for pid in family)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_program_that_dies_is_told_with_its_last_words(tmp_path: Path) -> None:
    from benchmarks.ground import Proxy, wait_until_listening

    with Child([sys.executable, "-c", "raise SystemExit('no such option')"], tmp_path / "log") as child:
        child.process.wait(10)
        with pytest.raises(BenchmarkError, match="no such option"):
            wait_until_listening(Proxy("luthien", 1, child, child.started_at))


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert percentile([float(value) for value in range(1, 101)], 99) == 99.0
    assert percentile([], 99) == 0.0
    assert spread_us([3.0, 1.0, 2.0]) == {"count": 3, "p50_us": 2.0, "p99_us": 3.0, "max_us": 3.0}


def test_a_mean_of_ratios_leaves_out_a_stall_and_tells_how_far_groups_are_apart() -> None:
    calm = [(2.0, 1.0)] * 7
    ratio, error = mean_of_ratios([[*calm, (90.0, 1.0)], [*calm, (1.0, 90.0)]])
    assert (ratio, error) == (pytest.approx(2.0), pytest.approx(0.0, abs=1e-9))
    ratio, error = mean_of_ratios([[(2.0, 1.0)], [(1.0, 2.0)]])
    assert (ratio, error) == (pytest.approx(1.0), pytest.approx(math.log(2)))
    with pytest.raises(ValueError, match="two data points"):
        mean_of_ratios([calm])


def test_what_the_host_took_is_the_eighth_figure(tmp_path: Path) -> None:
    file = tmp_path / "stat"
    file.write_text("cpu  1 2 3 4 5 6 7 250 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    assert stolen_s(file) == 250 / os.sysconf("SC_CLK_TCK")
    file.write_text("cpu  1 2 3\n")
    assert stolen_s(file) == 0.0
    assert stolen_s(tmp_path / "none") == 0.0


def test_what_was_not_measured_does_not_pass() -> None:
    judgements = judge({"json": {"nginx": {"requests_per_s": 40_000.0}}, "start": {"luthien": {"serving_s": 2.5}}})
    assert [judgement.met for judgement in judgements] == [None, False, None]
    table = target_table(judgements)
    assert table.count("not measured") == 2
    assert "FAIL" in table
