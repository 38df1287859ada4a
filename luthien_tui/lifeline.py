"""What a hang-up signal means: that the terminal went away, or that somebody asks to read the configuration again.

Without a terminal SIGHUP can only be such a request. With one it is told by looking: a terminal that hung up cannot be opened
any more, and a shell that ended on its way out is no longer the parent.
"""

from __future__ import annotations

import os
import termios


class Lifeline:
    """The terminal and the shell that luthien was started from; make it at the start."""

    def __init__(self) -> None:
        self._parent = os.getppid()
        self._has_terminal = _terminal_answers()

    def is_cut(self) -> bool:
        """Whether there was a terminal and it, or the shell in it, is gone."""
        return self._has_terminal and (os.getppid() != self._parent or not _terminal_answers())


def _terminal_answers() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        termios.tcgetattr(terminal)
    except (OSError, termios.error):
        return False
    finally:
        os.close(terminal)
    return True
