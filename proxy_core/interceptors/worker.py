"""The interceptors' process: `python -m proxy_core.interceptors.worker`, started by the gateway and by nobody else.

Frames come in on stdin; what is counted, logged and shown goes back on stdout as a line of JSON each. It ends with its input, so
it outlives a killed gateway only to work off what it was given. What interceptors print reaches the gateway's log through
stderr.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import BinaryIO

from msgspec.structs import replace

from proxy_core import logs
from proxy_core.errors import ConfigurationError
from proxy_core.interceptors import frames
from proxy_core.interceptors.dispatch import Interceptors
from proxy_core.interceptors.events import EventMaker
from proxy_core.interceptors.records import Began
from proxy_core.interceptors.registry import build_watchers
from proxy_core.interceptors.seldom import Seldom

log = logging.getLogger(__name__)

NICENESS = 5
"""Traffic goes first where CPUs are few; much more, and records would be lost wherever other programs keep them busy."""
CLOSE_S = 8.0
"""What waits at the end is worked off within this time."""
MAX_LINES = 20
"""Lines that are said at once: the gateway shows them beside its traffic."""
MAX_KNOWN = 20_000
"""Requests whose end has not come; above it the oldest are forgotten."""
TELL_COUNTS_S = 0.1
BUFFER_BYTES = 1024 * 1024


class Voice(logging.Handler):
    """Says things to the gateway."""

    def __init__(self, pipe: BinaryIO) -> None:
        super().__init__()
        self._pipe = pipe
        self._mutex = threading.Lock()
        self._said: object = None
        self._said_at = 0.0

    def say(self, what: str, content: object) -> None:
        line = json.dumps({what: content}).encode("ascii") + b"\n"
        try:
            with self._mutex:
                self._pipe.write(line)
                self._pipe.flush()
        except (OSError, ValueError):
            return  # the gateway is gone

    def emit(self, record: logging.LogRecord) -> None:
        self.say("log", [record.levelno, record.name, logs.message_of(record)])

    def show(self, lines: Sequence[str]) -> int:
        for start in range(0, len(lines), MAX_LINES):
            self.say("lines", list(lines[start : start + MAX_LINES]))
        return 0

    def tell_counts(self, interceptors: Interceptors, *, at_once: bool = False) -> None:
        """Where they are others than before, not too often."""
        now = time.monotonic()
        if at_once or now - self._said_at >= TELL_COUNTS_S:
            counts = [interceptors.done + interceptors.inbox.missed, interceptors.counts()]
            if counts != self._said:
                self._said, self._said_at = counts, now
                self.say("counts", counts)


class Reader:
    """Puts what comes into the inbox."""

    def __init__(self, interceptors: Interceptors) -> None:
        self._inbox = interceptors.inbox
        self._known: OrderedDict[str, Began] = OrderedDict()
        self._seldom = Seldom(log)

    def take(self, frame: frames.Frame) -> None:
        """One record; one that cannot be read is counted as missed, and the log says why."""
        try:
            self._take(frame)
        except Exception as fault:
            self._inbox.missed += 1
            self._seldom.warn("a record cannot be read: %s: %s", type(fault).__name__, fault)

    def _take(self, frame: frames.Frame) -> None:
        if frame.kind == frames.ENDED:
            ended = frames.ended_of(frame, self._known)
            if ended is None:
                self._inbox.missed += 1
            else:
                self._inbox.put(ended, len(frame.body))
            return
        began = frames.began_of(frame)
        self._known[began.intent.transaction_id] = began
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        if frame.kind == frames.BEGAN:
            self._inbox.put(began, len(frame.body))


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(ignored, signal.SIG_IGN)  # it ends with its input
    voice = Voice(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    pipe = os.fdopen(0, "rb", BUFFER_BYTES, closefd=False)
    task = frames.read(pipe)
    if task is None:
        return
    wanted, surroundings, level = task.meta()
    _log_through(voice, level)
    try:
        watchers = build_watchers(wanted, replace(surroundings, show=voice.show), quiet=True)
    except ConfigurationError as fault:
        log.error("interceptors cannot be built in their own process: %s", fault)
        sys.exit(2)
    events = EventMaker(max_sessions=surroundings.max_sessions, idle_s=surroundings.session_idle_s)
    interceptors = Interceptors(watchers, events, after_batch=voice.tell_counts)
    os.nice(NICENESS)
    interceptors.start()
    reader = Reader(interceptors)
    try:
        while (frame := frames.read(pipe)) is not None:
            reader.take(frame)
    except EOFError:
        interceptors.inbox.missed += 1  # the gateway was killed while it wrote
    interceptors.close(CLOSE_S)
    voice.tell_counts(interceptors, at_once=True)


def _log_through(voice: Voice, level: int) -> None:
    root = logging.getLogger()
    root.addHandler(voice)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for name in logs.OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)


if __name__ == "__main__":
    main()
