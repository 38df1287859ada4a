"""The interceptors' process: `python -m proxy_core.interceptors.worker`, started by the gateway and by nobody else.

Frames come in on stdin; what is counted, logged and shown goes back on stdout as a line of JSON each. It ends with its input, so
it outlives a killed gateway only to work off what it was given. What interceptors print reaches the gateway's log through
stderr.
"""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, BinaryIO

import msgspec
from msgspec.structs import replace

from proxy_core import logs
from proxy_core.errors import ConfigurationError
from proxy_core.interceptors import frames
from proxy_core.interceptors.dispatch import Interceptors
from proxy_core.interceptors.events import EventMaker
from proxy_core.interceptors.records import Began, Ended
from proxy_core.interceptors.registry import build_watchers

log = logging.getLogger(__name__)

NICENESS = 5
"""Of what cannot wait for spare time; much more, and records would be lost wherever other programs keep the CPUs busy."""
LEAST_NICENESS = 19
"""Of what reads the pipe, which takes next to nothing."""
GATHER_S = 0.1
"""Between two readings of the pipe."""
MUCH_BYTES = 128 * 1024
"""Where one reading finds so much, the next one follows at once."""
CLOSE_S = 8.0
"""What waits at the end is worked off within this time."""
GC_AFTER = 10_000
"""Objects, before garbage of cycles is looked for: records make none, and each of them has hundreds."""
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
        try:
            line = msgspec.json.encode({what: content}) + b"\n"
        except UnicodeEncodeError:  # half of a surrogate pair
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
            counts = [interceptors.done, interceptors.counts()]
            if counts != self._said:
                self._said, self._said_at = counts, now
                self.say("counts", counts)


class Gathered(io.FileIO):
    """A pipe that is read a few times a second while little comes: each reading takes a CPU from somebody."""

    _found = MUCH_BYTES
    """Bytes of the last reading."""

    def readinto(self, buffer: Any) -> int | None:
        if self._found < MUCH_BYTES:
            time.sleep(GATHER_S)
        self._found = found = super().readinto(buffer) or 0
        return found


class Reader:
    """Makes records of frames."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Began] = OrderedDict()

    def record_of(self, frame: frames.Frame) -> Began | Ended | None:
        """None where nothing is told. Raises what `frames` raises."""
        if frame.kind == frames.ENDED:
            return frames.ended_of(frame, self._known)
        began = frames.began_of(frame)
        self._known[began.intent.transaction_id] = began
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return began if frame.kind == frames.BEGAN else None


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(ignored, signal.SIG_IGN)  # it ends with its input
    voice = Voice(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    pipe = io.BufferedReader(Gathered(0, "rb", closefd=False), BUFFER_BYTES)
    task = frames.read(pipe)
    if task is None:
        return
    wanted, surroundings, level = task.told()
    _log_through(voice, level)
    try:
        watchers = build_watchers(wanted, replace(surroundings, show=voice.show), quiet=True)
    except ConfigurationError as fault:
        log.error("interceptors cannot be built in their own process: %s", fault)
        sys.exit(2)
    events = EventMaker(max_sessions=surroundings.max_sessions, idle_s=surroundings.session_idle_s)
    interceptors = Interceptors(watchers, events, after_batch=voice.tell_counts, read=Reader().record_of)
    os.nice(NICENESS)
    gc.freeze()
    gc.set_threshold(GC_AFTER, 50, 100)
    interceptors.start()
    _give_way()
    try:
        while (frame := frames.read(pipe)) is not None:
            interceptors.put(frame, len(frame.data))
    except EOFError:
        interceptors.miss()  # the gateway was killed while it wrote
    interceptors.close(CLOSE_S)
    voice.tell_counts(interceptors, at_once=True)


def _give_way() -> None:
    """Have this thread take a CPU from nobody who works; it still gets a share where all are busy, since a pipe fills up."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LEAST_NICENESS)
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _log_through(voice: Voice, level: int) -> None:
    root = logging.getLogger()
    root.addHandler(voice)
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for name in logs.OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)


if __name__ == "__main__":
    main()
