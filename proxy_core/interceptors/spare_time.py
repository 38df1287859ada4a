"""Work in spare time: by a thread that gets a CPU only where nobody else wants it, until it is urgent.

Only Linux has such a priority; elsewhere both threads have the ordinary one.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)

FAULT_WAIT_S = 1.0


class SpareTime:
    """Two threads that never work at the same time: one in spare time, and one of ordinary priority while it is urgent."""

    def __init__(self, name: str, in_spare_time: Callable[[], None], at_once: Callable[[], bool]) -> None:
        """`in_spare_time` works until `is_urgent`; `at_once` does the urgent work and tells whether there will be more."""
        self._name = name
        self._in_spare_time = in_spare_time
        self._at_once = at_once
        self._urgent = threading.Event()
        self._spare: threading.Thread | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """To be called at ordinary priority, which is inherited."""
        self._thread.start()

    def is_urgent(self) -> bool:
        return self._urgent.is_set()

    def hasten(self) -> None:
        """It is urgent. A thread that is at work goes on at ordinary priority where the system allows that (it takes the
        right to raise priorities); where not, the other one waits for it. Called from any thread."""
        if self._urgent.is_set():
            return
        self._urgent.set()
        spare = self._spare
        if spare is not None and spare.native_id is not None and spare.is_alive():
            with suppress(AttributeError, OSError):
                os.sched_setscheduler(spare.native_id, os.SCHED_OTHER, os.sched_param(0))

    def calm(self) -> None:
        """It is urgent no more; called from `at_once`."""
        self._urgent.clear()

    def join(self, timeout_s: float) -> bool:
        """Wait for the last work; returns whether that has been done."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            if not self._urgent.is_set():
                self._spare = threading.Thread(target=self._lowered, name=f"{self._name}-spare", daemon=True)
                self._spare.start()
                self._spare.join()
            goes_on = self._at_once()

    def _lowered(self) -> None:
        with suppress(AttributeError, OSError):  # other systems have no such thing, or do not allow it
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        try:
            self._in_spare_time()
        except Exception:
            log.exception("%s: what is done in spare time failed, and is tried again", self._name)
            self._urgent.wait(FAULT_WAIT_S)
