"""Runs `luthien` with a switch on its interceptors: `python -m benchmarks.switched ARGUMENTS…`.

SIGUSR2 keeps them from hearing of requests that begin from then on, SIGUSR1 lets them hear again. So one process is measured with
and without them; two of the same kind differ by more than interceptors do.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from proxy_core.interceptors.process import InterceptorProcess

ON, OFF = signal.SIGUSR1, signal.SIGUSR2


def switch_by_signals() -> None:
    """From now on signals switch the interceptors of every gateway of this process."""
    is_on = True
    begun = InterceptorProcess.begun

    def begun_if_on(self: InterceptorProcess, *told: Any) -> None:
        # Of a request that it was not told of no end is told either.
        if is_on:
            begun(self, *told)

    def switch(number: int, _frame: object) -> None:
        nonlocal is_on
        is_on = number == ON

    InterceptorProcess.begun = begun_if_on  # type: ignore[assignment,method-assign]
    signal.signal(ON, switch)
    signal.signal(OFF, switch)


def main() -> None:
    from luthien_tui.cli import main as luthien_main

    switch_by_signals()
    sys.argv = ["luthien", *sys.argv[1:]]
    sys.exit(luthien_main())  # type: ignore[func-returns-value,unused-ignore]


if __name__ == "__main__":
    main()
