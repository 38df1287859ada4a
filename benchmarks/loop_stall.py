"""How late the gateway's event loop is while a screen follows 500 transactions/s over 50,000 rows.

    python -m benchmarks.loop_stall [--rows 50000] [--rate 500] [--seconds 10]

A real gateway in a real terminal, the load an open loop. Stalls are measured inside the process (a callback due every 2 ms),
latencies by the client, both also headless: the difference is what the screen costs. `own_stall` leaves out the time in which
other processes had the CPU. The gateway's own `luthien_loop_lag_seconds` is read beside them.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable

from benchmarks.figures import percentile, rounded
from benchmarks.ground import Ground, Proxy, fetch
from benchmarks.processes import BenchmarkError
from benchmarks.stall_probe import read_samples

LAG_LINE = re.compile(r"^luthien_loop_lag_seconds(\S*) (\S+)$", re.MULTILINE)
LONG_MS = 20.0


def fill(ground: Ground, proxy: Proxy, rows: int, patience_s: float = 180.0) -> float:
    """Send transactions, each a conversation of its own, until there are `rows`; how many there were."""
    done = 0.0
    deadline = time.monotonic() + patience_s
    while done < rows and time.monotonic() < deadline:
        done += ground.wrk(proxy, connections=32, seconds=2 if rows < 10_000 else 5, spread=True)["requests"]
    return done


def own_lag_ms(proxy: Proxy) -> dict[str, float]:
    """What the gateway says about its loop: the plain value, or the mean of a histogram."""
    try:
        status, body = fetch(proxy.port, "/metrics")
    except OSError:
        return {}
    found = {name: float(value) for name, value in LAG_LINE.findall(body.decode("utf-8", "replace"))} if status == 200 else {}
    if "" in found:
        return {"own_lag_ms": rounded(found[""] * 1000)}
    if found.get("_count"):
        return {"own_lag_ms": rounded(found["_sum"] / found["_count"] * 1000)}
    return {}


def measure_stalls(ground: Ground, name: str, *, rows: int, rate: float, seconds: float) -> dict[str, float]:
    """Stalls (ms) and client latencies (us) of `luthien` or `luthien-ui` at a steady rate."""
    samples = ground.folder / f"stalls-{name}-{time.monotonic_ns()}"
    wrapper = [sys.executable, "-m", "benchmarks.stall_probe", str(samples)]
    with ground.started(name, wrapper=wrapper) as proxy:
        filled = fill(ground, proxy, rows)
        time.sleep(2)
        with ground.load(proxy, connections=64, seconds=seconds + 1, spread=True, rate=rate) as load:
            begin = time.monotonic() + 1
            cpu_begin = proxy.cpu_s()
            client = load()
            end = begin + seconds
        cpu_end = proxy.cpu_s()
        lag = own_lag_ms(proxy)
        screen_bytes = proxy.child.screen_bytes if proxy.child else 0
    if not samples.exists():
        raise BenchmarkError(f"{name} left no samples: it did not end cleanly")
    found = read_samples(samples, begin, end)
    late = sorted(lateness for lateness, _ in found)
    own = sorted(lateness - waited for lateness, waited in found)
    figures = {
        "rows": filled,
        "answered_per_s": rounded(client["requests"] / client["seconds"]),
        "stall_p50_ms": rounded(percentile(late, 50) / 1000),
        "stall_p99_ms": rounded(percentile(late, 99) / 1000),
        "stall_max_ms": rounded(late[-1] / 1000 if late else 0.0),
        "stalls_over_20_ms": float(sum(value > LONG_MS * 1000 for value in late)),
        "own_stall_p99_ms": rounded(percentile(own, 99) / 1000),
        "own_stall_max_ms": rounded(own[-1] / 1000 if own else 0.0),
        "client_p50_us": rounded(client["p50_us"]),
        "client_p99_us": rounded(client["p99_us"]),
        "client_max_us": rounded(client["max_us"]),
        "sent_late_p99_us": rounded(client["sent_late_p99_us"]),
        "failed": client["bad_status"] + client["broken"],
    }
    if cpu_begin is not None and cpu_end is not None:
        figures["cpu_percent"] = rounded((cpu_end - cpu_begin) / (seconds + 1) * 100)
    if screen_bytes:
        figures["screen_mb"] = rounded(screen_bytes / 1e6)
    return figures | lag


def both(ground: Ground, *, rows: int, rate: float, seconds: float, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Headless and with the screen; what cannot run is noted."""
    found: dict[str, dict[str, float]] = {}
    for name in ("luthien", "luthien-ui"):
        say(f"  {name}")
        try:
            found[name] = measure_stalls(ground, name, rows=rows, rate=rate, seconds=seconds)
        except BenchmarkError as error:
            ground.notes.append(f"{name}: {error}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop_stall", description="Event loop stalls under a steady load.")
    parser.add_argument("--rows", type=int, default=50_000, help="transactions on the screen before the measurement")
    parser.add_argument("--rate", type=float, default=500.0, help="transactions a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    with Ground() as ground:
        found = both(ground, rows=given.rows, rate=given.rate, seconds=given.seconds, say=print)
        notes = ground.notes
    for key in next(iter(found.values()), {}):
        values = "  ".join(f"{name} {figures.get(key, float('nan')):>10g}" for name, figures in found.items())
        print(f"{key:<20}{values}")
    for note in notes:
        print("note:", note)


if __name__ == "__main__":
    main()
