"""The measurements: each takes a `Ground` and gives figures by proxy. No judgement here, that is in targets.py.

Microseconds, megabytes (10^6 bytes), seconds and requests per second, named in each key.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks import watched
from benchmarks.figures import median, rounded, spread_us
from benchmarks.ground import Ground, Proxy, fetch, wait_until_listening
from benchmarks.loop_stall import both, fill
from benchmarks.plain_client import Connection, now_us, question, request_bytes
from benchmarks.processes import BenchmarkError, Child, free_port

Figures = dict[str, float]
SuiteResult = dict[str, Figures]


@dataclass(frozen=True)
class Plan:
    """How long and how much."""

    duration_s: float = 6.0
    """Of one load on one proxy."""
    warmup_s: float = 2.0
    rounds: int = 1
    """How often the loads are repeated, proxies taking turns; the median counts."""
    rows: int = 50_000
    """Transactions before memory is read."""
    starts: int = 5
    sequential: int = 2_000
    """Requests one after the other, for the added latency."""
    first_tokens: int = 200
    forwarded_events: int = 100
    stall_s: float = 10.0
    pairs: int = 10
    """Loads with and without interceptors, taking turns."""
    pair_starts: int = 8
    """Gateways started for them, one after the other."""
    pair_s: float = 1.0
    """Of one of them."""
    say: Callable[[str], None] = print


QUICK = Plan(
    duration_s=2.0,
    warmup_s=1.0,
    rows=5_000,
    starts=2,
    sequential=400,
    first_tokens=40,
    forwarded_events=20,
    stall_s=4.0,
    pairs=4,
    pair_starts=3,
)


def medians(rounds: Sequence[Figures]) -> Figures:
    """Key by key."""
    return {key: rounded(median([figures[key] for figures in rounds])) for key in rounds[0]}


def under_load(ground: Ground, proxy: Proxy, plan: Plan, *, connections: int, stream: bool = False, turns: int = 0) -> Figures:
    """Warm up, load, and read what it cost."""
    ground.wrk(proxy, connections=connections, seconds=plan.warmup_s, stream=stream, turns=turns)
    before = proxy.cpu_s()
    figures = ground.wrk(proxy, connections=connections, seconds=plan.duration_s, stream=stream, turns=turns)
    after = proxy.cpu_s()
    found: Figures = {
        "requests_per_s": rounded(figures["requests"] / figures["seconds"]),
        "p50_us": figures["p50_us"],
        "p99_us": figures["p99_us"],
        "failed": figures["bad_status"] + figures["broken"],
    }
    if before is not None and after is not None:
        found["cpu_us"] = rounded((after - before) * 1e6 / figures["requests"])
        found["cpu_share"] = rounded((after - before) / figures["seconds"])
    if (memory := proxy.rss_mb()) is not None:
        found["rss_mb"] = rounded(memory)
    return found


def compare(ground: Ground, plan: Plan, names: Sequence[str], measure: Callable[[Proxy], Figures]) -> SuiteResult:
    """Each proxy alone, one after the other; what cannot be started is noted and left out."""
    found: dict[str, list[Figures]] = {}
    for turn in range(plan.rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            plan.say(f"  {name}")
            try:
                with ground.started(name) as proxy:
                    found.setdefault(name, []).append(measure(proxy))
            except BenchmarkError as error:
                ground.notes.append(f"{name}: {error}")
    return {name: medians(found[name]) for name in names if name in found}


def json_suite(ground: Ground, plan: Plan) -> SuiteResult:
    """JSON answers, 32 connections kept busy."""
    found = compare(ground, plan, ("direct", "nginx", "luthien"), lambda proxy: under_load(ground, proxy, plan, connections=32))
    deep = compare(ground, plan, ("luthien",), lambda proxy: under_load(ground, proxy, plan, connections=32, turns=10))
    return found | {f"{name}, 20 messages before": figures for name, figures in deep.items()}


def ui_suite(ground: Ground, plan: Plan) -> SuiteResult:
    """The same load with the screen open and following, beside headless."""
    return compare(ground, plan, ("luthien", "luthien-ui"), lambda proxy: under_load(ground, proxy, plan, connections=32))


def stream_suite(ground: Ground, plan: Plan) -> SuiteResult:
    """64 streams at a time of 34 events each, 10 ms apart; one more connection reads the delay of each event."""

    def measure(proxy: Proxy) -> Figures:
        figures = under_load(ground, proxy, plan, connections=64, stream=True)
        delays: list[float] = []
        request = request_bytes(ground.shape, question(ground.shape, stream=True))
        with (
            ground.load(proxy, connections=63, seconds=max(2.0, plan.duration_s / 2), stream=True) as load,
            Connection(proxy.port) as reader,
        ):
            while load.running:
                delays += [event.delay_us for event in reader.events(request) if event.delay_us is not None]
        spread = spread_us(delays)
        return figures | {f"event_{key}": spread[key] for key in ("p50_us", "p99_us", "max_us")}

    return compare(ground, plan, ("direct", "nginx", "luthien"), measure)


def alternate(ground: Ground, names: Sequence[str], measure: Callable[[Proxy, Connection], float], count: int) -> SuiteResult:
    """Measure proxies in turn, all running, in small blocks, so that noise meets each alike; the first block is a warm-up."""
    block = max(10, count // 20)
    values: dict[str, list[float]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        lines: dict[str, tuple[Proxy, Connection]] = {}
        for name in names:
            try:
                proxy = stack.enter_context(ground.started(name))
            except BenchmarkError as error:
                ground.notes.append(f"{name}: {error}")
                continue
            lines[name] = proxy, stack.enter_context(Connection(proxy.port))
        for number in range(count // block + 1):
            for name, (proxy, connection) in lines.items():
                found = [measure(proxy, connection) for _ in range(block)]
                if number:
                    values[name] += found
    return {name: spread_us(values[name]) for name in lines}


def idle_suite(ground: Ground, plan: Plan) -> SuiteResult:
    """One request at a time on an idle proxy; first tokens; and the delay of events that come every 100 ms."""
    small = request_bytes(ground.shape, question(ground.shape, stream=False))
    opening = request_bytes(ground.shape, question(ground.shape, stream=True), x_mock_tokens=2, x_mock_gap_us=1000)
    slow = request_bytes(
        ground.shape, question(ground.shape, stream=True), x_mock_tokens=plan.forwarded_events, x_mock_gap_us=100_000
    )

    def one_request(proxy: Proxy, connection: Connection) -> float:
        begin = now_us()
        status, _ = connection.ask(small)
        if status != 200:
            raise BenchmarkError(f"{proxy.name} answered {status}")
        return now_us() - begin

    def first_token(_: Proxy, connection: Connection) -> float:
        begin = now_us()
        arrivals = [event.received_us for event in connection.events(opening) if event.delay_us is not None]
        return arrivals[0] - begin

    found: SuiteResult = {}
    names = ("direct", "nginx", "luthien")
    plan.say("  one request at a time")
    for name, figures in alternate(ground, names, one_request, plan.sequential).items():
        found[name] = {f"request_{key}": value for key, value in figures.items() if key != "max_us"}
    plan.say("  first tokens")
    for name, figures in alternate(ground, names, first_token, plan.first_tokens).items():
        found[name] |= {f"first_token_{key}": value for key, value in figures.items() if key != "max_us"}
    plan.say(f"  an event every 100 ms, {plan.forwarded_events / 10:.0f} s each")
    for name in names:
        if name in found:
            with ground.started(name) as proxy, Connection(proxy.port) as connection:
                delays = [event.delay_us for event in connection.events(slow) if event.delay_us is not None]
            found[name] |= {f"event_{key}": value for key, value in spread_us(delays).items()}
    for key in ("request_p50_us", "first_token_p50_us"):
        for name in names[1:]:
            if name in found:
                found[name][f"added_{key}"] = rounded(found[name][key] - found["direct"][key])
    return found


def start_suite(ground: Ground, plan: Plan) -> SuiteResult:
    """From the command to the first answer of /health, and with the screen to its first painting."""
    found: SuiteResult = {}
    for name in ("luthien", "luthien-ui"):
        plan.say(f"  {name}")
        runs: list[Figures] = []
        for _ in range(plan.starts + 1):
            try:
                runs.append(one_start(ground, name))
            except BenchmarkError as error:
                ground.notes.append(f"{name}: {error}")
                break
        if len(runs) > 1:
            found[name] = medians(runs[1:]) | {"first_run_s": runs[0]["serving_s"]}
    return found


def one_start(ground: Ground, name: str) -> Figures:
    """One start with a new data folder, and what it takes to end it."""
    port = free_port()
    headless = name == "luthien"
    data = ground.folder / f"start-{name}-{port}"
    command = ground.luthien_command(port, data, headless=headless)
    with Child(
        command, ground.folder / f"start-{port}.log", cpus=ground.cpus.proxy, terminal=None if headless else (120, 36)
    ) as child:
        proxy = Proxy(name, port, child, child.started_at)
        figures: Figures = {}
        if headless:
            figures["listening_s"] = rounded(wait_until_listening(proxy))
            figures["serving_s"] = rounded(wait_until_healthy(proxy))
        else:
            figures["painted_s"], figures["serving_s"] = wait_until_painted(proxy)
        figures["rss_mb"] = rounded(proxy.rss_mb() or 0.0)
        begin = time.monotonic()
        child.stop()
        figures["end_s"] = rounded(time.monotonic() - begin)
        figures["exit_status"] = float(child.process.returncode)
    return figures


def is_healthy(port: int) -> bool:
    try:
        return fetch(port, "/health")[0] == 200
    except OSError:
        return False


def wait_until_healthy(proxy: Proxy, patience_s: float = 30.0) -> float:
    """Seconds from the command until /health answers 200."""
    while time.monotonic() < proxy.started_at + patience_s:
        proxy.check()
        if is_healthy(proxy.port):
            return time.monotonic() - proxy.started_at
        time.sleep(0.002)
    raise BenchmarkError(f"{proxy.name} has no health after {patience_s:.0f} s")


def wait_until_painted(proxy: Proxy, patience_s: float = 30.0) -> tuple[float, float]:
    """Seconds from the command until the screen shows the address, and until /health answers 200."""
    assert proxy.child is not None
    painted = serving = 0.0
    while time.monotonic() < proxy.started_at + patience_s:
        proxy.check()
        if not painted and f":{proxy.port}" in proxy.child.screen_text():
            painted = rounded(time.monotonic() - proxy.started_at)
        if not serving and is_healthy(proxy.port):
            serving = rounded(time.monotonic() - proxy.started_at)
        if painted and serving:
            return painted, serving
        time.sleep(0.005)
    missing = "serves and shows no screen with its address" if serving else "does not serve"
    raise BenchmarkError(f"{proxy.name} {missing} after {patience_s:.0f} s: {proxy.child.why()}")


def memory_suite(ground: Ground, plan: Plan) -> SuiteResult:
    """Resident memory after the planned number of transactions, each a conversation of its own."""

    def measure(proxy: Proxy) -> Figures:
        fresh = proxy.rss_mb()
        if fresh is None:
            raise BenchmarkError("memory cannot be read on this system")
        done = fill(ground, proxy, plan.rows)
        time.sleep(2)
        return {"rows": done, "fresh_mb": rounded(fresh), "rss_mb": rounded(proxy.rss_mb() or 0.0)}

    return compare(ground, plan, ("luthien", "luthien-ui"), measure)


def stall_suite(ground: Ground, plan: Plan) -> SuiteResult:
    """How late the event loop is at 500 transactions/s, with and without a screen."""
    return both(ground, rows=plan.rows, rate=500, seconds=plan.stall_s, say=plan.say)


def interceptors_suite(ground: Ground, plan: Plan) -> SuiteResult:
    """500 requests/s with all interceptors on beside none, in pairs."""
    return watched.pairs(ground, starts=plan.pair_starts, count=plan.pairs, seconds=plan.pair_s, say=plan.say)


SUITES: dict[str, Callable[[Ground, Plan], SuiteResult]] = {
    "json": json_suite,
    "stream": stream_suite,
    "idle": idle_suite,
    "start": start_suite,
    "ui": ui_suite,
    "memory": memory_suite,
    "stall": stall_suite,
    "interceptors": interceptors_suite,
}
