"""Lines of interceptors for people: on stderr, or in the log of the screen.

Headless they go to stderr; while a screen is open that is the screen's, and they go to its log. Control characters are written
out. A terminal or pipe that does not take a line at once does not get it: it is counted. Runs in the gateway's process, which
alone knows who has the terminal.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from collections.abc import Sequence

from proxy_core import logs

PIECE_BYTES = 4_096
"""A pipe that is ready takes so much without waiting."""
_log = logging.getLogger("luthien.printer")


def show(lines: Sequence[str]) -> int:
    """Show lines; returns how many could not be."""
    if logs.stderr_is_ours():
        return _print(lines)
    _log.setLevel(logging.INFO)
    for line in lines:
        _log.info("%s", line)
    return 0


def _print(lines: Sequence[str]) -> int:
    clock = time.strftime("%H:%M:%S")
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return len(lines)
    ready = select.poll()
    ready.register(descriptor, select.POLLOUT)
    piece = b""
    waiting = dropped = 0
    for line in lines:
        shown = line if line.isascii() and line.isprintable() else logs.escaped(line)
        text = f"{clock} {shown}\n".encode("utf-8", "backslashreplace")
        if len(text) > PIECE_BYTES:
            text = text[: PIECE_BYTES - 1].decode("utf-8", "ignore").encode("utf-8") + b"\n"
        if len(piece) + len(text) > PIECE_BYTES:
            dropped += 0 if _written(ready, descriptor, piece) else waiting
            piece, waiting = b"", 0
        piece += text
        waiting += 1
    return dropped if _written(ready, descriptor, piece) else dropped + waiting


def _written(ready: select.poll, descriptor: int, piece: bytes) -> bool:
    """Write what a pipe or terminal takes at once, or nothing."""
    if not any(state & select.POLLOUT for _, state in ready.poll(0)):
        return False
    try:
        os.write(descriptor, piece)
    except OSError:
        return False
    return True
