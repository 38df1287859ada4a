"""Runs `luthien` with a sampler on its event loop: `python -m benchmarks.stall_probe FILE ARGUMENTS…`.

Every 2 ms a callback is due; how late it ran is one sample. At the end FILE gets pairs of doubles: CLOCK_MONOTONIC seconds
of the sample and its lateness in microseconds. The reader picks the window it cares about.
"""

from __future__ import annotations

import array
import asyncio
import sys
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
        self.expect()

    def expect(self) -> None:
        self.due = time.monotonic() + PERIOD_S
        self.loop.call_later(PERIOD_S, self.note)

    def note(self) -> None:
        now = time.monotonic()
        self.samples.extend((now, max(0.0, (now - self.due) * 1e6)))
        self.expect()


def watch(output: Path) -> None:
    """Every loop a runner runs from now on is sampled."""

    def run(self: asyncio.Runner, coro: Coroutine[Any, Any, T], *, context: Context | None = None) -> T:
        async def watched() -> T:
            sampler = Sampler(asyncio.get_running_loop())
            try:
                return await coro
            finally:
                output.write_bytes(sampler.samples.tobytes())

        return run_unwatched(self, watched(), context=context)

    asyncio.Runner.run = run  # type: ignore[method-assign]


def read_samples(path: Path, begin_s: float, end_s: float) -> list[float]:
    """Lateness in microseconds of the samples between two moments of CLOCK_MONOTONIC."""
    values = array.array("d")
    values.frombytes(path.read_bytes())
    return [late for moment, late in zip(values[::2], values[1::2], strict=True) if begin_s <= moment < end_s]


def main() -> None:
    from luthien_tui.cli import main as luthien_main

    watch(Path(sys.argv[1]))
    sys.argv = ["luthien", *sys.argv[2:]]
    sys.exit(luthien_main())  # type: ignore[func-returns-value,unused-ignore]


if __name__ == "__main__":
    main()
