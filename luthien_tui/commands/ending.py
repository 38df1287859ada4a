"""The last words of the command: what went wrong as one line on stderr, and streams whose reader has left.

An error on purpose is one line `luthien: …`; a defect leaves its trace in the log file.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TextIO

from proxy_core.errors import ExitCode


def complain(message: str, code: int) -> int:
    """Say what is wrong, a line each; returns the exit code."""
    from proxy_core.logs import escaped, redact

    for line in message.splitlines() if sys.stderr is not None else ():
        print(f"luthien: {escaped(redact(line))}", file=sys.stderr)
    return code


def crashed(defect: Exception) -> int:
    """Say that it was a defect, and where its trace is; returns the exit code."""
    import logging
    import traceback

    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    files = [handler for handler in handlers if Path(handler.baseFilename).exists()]
    logging.getLogger("luthien").critical("ended by a defect", exc_info=defect)
    place = f"the trace is in {files[0].baseFilename}" if files else "the trace follows"
    code = complain(f"a defect: {type(defect).__name__}: {' '.join(str(defect).split())}; {place}", ExitCode.CRASH)
    if not files:
        traceback.print_exception(defect)
    return code


def silence(stream: TextIO | None) -> None:
    """Whoever read the output left; keep the interpreter from complaining about it at exit."""
    if stream is None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def flush() -> None:
    """Write out what waits; may last for as long as a terminal takes nothing."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            silence(stream)
