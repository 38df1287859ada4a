"""Where the gateway's time goes: `python -m benchmarks.profile [--stream] [--ui] [--seconds N]`.

A real gateway under load from wrk, watched by py-spy where it is installed (samples, every thread, hardly any cost), else by
cProfile (exact counts, the loop's thread alone, everything several times slower). Prints the hottest functions by own and by
cumulative time; with py-spy the hottest lines too.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.ground import Ground
from benchmarks.processes import BenchmarkError

T = TypeVar("T")
TOGGLE = signal.SIGUSR2
LOOP_ENTRY = "Runner.run ("
"""Frames outside of this one say nothing. Its own time is the loop in C, system calls, and waits for other threads."""
run_unwatched = asyncio.Runner.run


@dataclass
class Costs:
    """Weights of functions, in any unit, and their sum."""

    own: Counter[str] = field(default_factory=Counter)
    cumulative: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    total: float = 0.0

    def add_stack(self, frames: list[str], count: int) -> None:
        """One sampled stack, outermost frame first, each `function (file:line)`."""
        start = next((place for place, frame in enumerate(frames) if frame.startswith(LOOP_ENTRY)), 0)
        functions = [without_line(frame) for frame in frames[start:]]
        self.own[functions[-1]] += count
        for function in set(functions):
            self.cumulative[function] += count
        self.lines[shortened(frames[-1])] += count
        self.total += count


def without_line(frame: str) -> str:
    return shortened(frame.rpartition(":")[0] + ")" if ":" in frame else frame)


def shortened(frame: str) -> str:
    """A path from its package on."""
    name, _, path = frame.partition(" (")
    for root in ("site-packages/", f"{Path(__file__).parent.parent}/", "/lib/python3"):
        before, found, rest = path.partition(root)
        if found:
            return f"{name} ({rest}"
        path = before
    return f"{name} ({path}" if path else name


def sample(pid: int, seconds: float, output: Path) -> Costs:
    """Let py-spy watch a process and add its stacks up. Waiting threads do not count."""
    tool = py_spy()
    if tool is None:
        raise BenchmarkError("py-spy is not installed")
    command = [tool, "record", "--pid", str(pid), "--duration", str(round(seconds)), "--rate", "250"]
    command += ["--format", "raw", "--output", str(output), "--nonblocking"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode or not output.exists():
        raise BenchmarkError(f"py-spy cannot watch the process: {(done.stderr or done.stdout).strip()[-300:]}")
    costs = Costs()
    for line in output.read_text("utf-8", "replace").splitlines():
        stack, _, count = line.rpartition(" ")
        if stack and count.isdigit():
            costs.add_stack(stack.split(";"), int(count))
    return costs


def py_spy() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def read_counts(path: Path) -> Costs:
    """What cProfile wrote, in seconds."""
    stats = pstats.Stats(str(path))
    costs = Costs()
    rows: dict[tuple[str, int, str], tuple[int, int, float, float, object]] = stats.stats  # type: ignore[attr-defined]
    for (file, line, name), (_, calls, own, cumulative, _) in rows.items():
        frame = shortened(f"{name} ({file}:{line})") + f"  {calls} calls"
        costs.own[frame] += own  # type: ignore[assignment]
        costs.cumulative[frame] += cumulative  # type: ignore[assignment]
        costs.total += own
    return costs


def watched_luthien(output: Path, arguments: list[str]) -> None:
    """The child's side with cProfile: TOGGLE starts and ends the recording, which is then written."""
    from luthien_tui.cli import main as luthien_main

    profile = cProfile.Profile()
    recording = False

    def toggle() -> None:
        nonlocal recording
        if recording:
            profile.disable()
            profile.dump_stats(output)
        else:
            profile.enable()
        recording = not recording

    def run(self: asyncio.Runner, coro: Coroutine[Any, Any, T], *, context: Context | None = None) -> T:
        async def watched() -> T:
            asyncio.get_running_loop().add_signal_handler(TOGGLE, toggle)
            return await coro

        return run_unwatched(self, watched(), context=context)

    asyncio.Runner.run = run  # type: ignore[method-assign]
    sys.argv = ["luthien", *arguments]
    luthien_main()


def profile(ground: Ground, *, tool: str, screen: bool, stream: bool, spread: bool, seconds: float) -> Costs:
    """One gateway, one load, one recording."""
    output = ground.folder / "profile.out"
    name = "luthien-ui" if screen else "luthien"
    wrapper = [sys.executable, "-m", "benchmarks.profile", "--child", str(output)] if tool == "cprofile" else None
    connections = 64 if stream else 32
    with ground.started(name, wrapper=wrapper) as proxy:
        assert proxy.child is not None
        pid = proxy.child.process.pid
        ground.wrk(proxy, connections=connections, seconds=2, stream=stream, spread=spread)
        with ground.load(proxy, connections=connections, seconds=seconds + 2, stream=stream, spread=spread) as load:
            time.sleep(1)
            if tool == "py-spy":
                costs = sample(pid, seconds, output)
            else:
                proxy.child.process.send_signal(TOGGLE)
                time.sleep(seconds)
                proxy.child.process.send_signal(TOGGLE)
            figures = load()
        print(f"{name}: {figures['requests'] / figures['seconds']:,.0f} requests/s while watched by {tool}")
        if tool == "cprofile":
            wait_for(output.exists, 10)
            costs = read_counts(output)
    return costs


def wait_for(condition: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError("the recording was not written")
        time.sleep(0.02)


def show(costs: Costs, count: int) -> None:
    for title, table in (("own time", costs.own), ("cumulative time", costs.cumulative), ("own time by line", costs.lines)):
        if table:
            print(f"\n{title}")
            for frame, weight in table.most_common(count):
                print(f"  {100 * weight / (costs.total or 1):5.1f} %  {frame}")


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        watched_luthien(Path(sys.argv[2]), sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description="Where the gateway's time goes under load.")
    parser.add_argument("--stream", action="store_true", help="64 streams instead of JSON answers")
    parser.add_argument("--spread", action="store_true", help="each request another conversation")
    parser.add_argument("--ui", action="store_true", help="with the screen open")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--top", type=int, default=40, metavar="N", help="rows of each table [40]")
    parser.add_argument("--tool", choices=("py-spy", "cprofile"), help="[py-spy where it is installed]")
    given = parser.parse_args()
    tool = given.tool or ("py-spy" if py_spy() else "cprofile")
    if given.tool is None and tool == "cprofile":
        print("note: py-spy is missing, cProfile is used: calls look dearer than they are. To install: pip install py-spy")
    with Ground() as ground:
        for note in ground.notes:
            print("note:", note)
        try:
            costs = profile(ground, tool=tool, screen=given.ui, stream=given.stream, spread=given.spread, seconds=given.seconds)
        except BenchmarkError as error:
            print(f"profile: {error}", file=sys.stderr)
            return 2
    show(costs, given.top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
