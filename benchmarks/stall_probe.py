"""Runs `luthien` with a sampler on its event loop: `python -m benchmarks.stall_probe FILE ARGUMENTS…`.

Every 2 ms a callback is due; how late it ran is one sample. At the end FILE gets three doubles for each: CLOCK_MONOTONIC
seconds, its lateness, and how long the loop's thread had waited for a CPU meanwhile, both in microseconds. The reader picks
the window it cares about, and can tell a stall of our own making from one that other processes made.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import io
import sys
import threading
import time
from collections.abc import Coroutine
from contextvars import Context
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
PERIOD_S = 0.002
run_unwatched = asyncio.Runner.run


class Sampler:
    """Samples of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.samples = array.array("d")
        self._schedule: io.TextIOWrapper | None = None
        with contextlib.suppress(OSError):  # Linux alone tells
            self._schedule = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat").open(encoding="ascii")  # noqa: SIM115
        self._waited_us = self.waited_us()
        self.expect()

    def waited_us(self) -> float:
        """Microseconds that this thread was ready and had no CPU, since its start; 0 where the system does not tell."""
        if self._schedule is None:
            return 0.0
        self._schedule.seek(0)
        return int(self._schedule.read().split()[1]) / 1000

    def close(self) -> None:
        if self._schedule is not None:
            self._schedule.close()

    def expect(self) -> None:
        self.due = time.monotonic() + PERIOD_S
        self.loop.call_later(PERIOD_S, self.note)

    def note(self) -> None:
        now = time.monotonic()
        waited, before = self.waited_us(), self._waited_us
        self._waited_us = waited
        self.samples.extend((now, max(0.0, (now - self.due) * 1e6), waited - before))
        self.expect()


def watch(output: Path) -> None:
    """Every loop a runner runs from now on is sampled."""

    def run(self: asyncio.Runner, coro: Coroutine[Any, Any, T], *, context: Context | None = None) -> T:
        async def watched() -> T:
            sampler = Sampler(asyncio.get_running_loop())
            try:
                return await coro
            finally:
                sampler.close()
                output.write_bytes(sampler.samples.tobytes())

        return run_unwatched(self, watched(), context=context)

    asyncio.Runner.run = run  # type: ignore[method-assign]


def read_samples(path: Path, begin_s: float, end_s: float) -> list[tuple[float, float]]:
    """Lateness, and the wait for a CPU in it, in microseconds, of the samples between two moments of CLOCK_MONOTONIC."""
    values = array.array("d")
    values.frombytes(path.read_bytes())
    samples = zip(values[::3], values[1::3], values[2::3], strict=True)
    return [(late, min(late, waited)) for moment, late, waited in samples if begin_s <= moment < end_s]


def main() -> None:
    from luthien_tui.cli import main as luthien_main

    watch(Path(sys.argv[1]))
    sys.argv = ["luthien", *sys.argv[2:]]
    sys.exit(luthien_main())  # type: ignore[func-returns-value,unused-ignore]


if __name__ == "__main__":
    main()
