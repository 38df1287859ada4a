"""Warnings about what may happen with each record: one a minute, so that trouble does not fill the log."""

from __future__ import annotations

import logging
import time

EVERY_S = 60.0


class Seldom:
    """The warnings of one place; what comes within a minute of the last one is not said."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said_at = -EVERY_S

    def warn(self, message: str, *values: object) -> None:
        now = time.monotonic()
        if now - self._said_at >= EVERY_S:
            self._said_at = now
            self._log.warning(message, *values)
