"""luthien's own messages: a bounded ring for the screen, and one line each on stderr or in a file.

Whatever ends up in a message, it stays one line without control characters, and anything that looks like a credential is
replaced before a handler sees it. Nothing here waits for a reader; the ring forgets its oldest lines.
"""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
import os
import re
import sys
import time
import traceback
from collections import deque
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from msgspec import Struct

if TYPE_CHECKING:
    from proxy_core.settings import LogSettings

OWN_LOGGERS = ("proxy_core", "luthien_tui", "luthien")
MAX_MESSAGE = 4_000

_SECRETS = re.compile(
    r"""(?ix)
    (?P<scheme>\bbearer\s+)[a-z0-9._~+/=-]{6,}
    | (?P<name>["']?\b(?:proxy-)?authorization["']?\s*[:=]\s*["']?)(?:(?:bearer|basic|token)\s+)?[^\s"',;}\]]{4,}
    | (?P<field>["']?\b(?:x-api-key|api[_-]?key|x-goog-api-key|password|passwd|secret|access[_-]?token|set-cookie|cookie)
        ["']?\s*[:=]\s*["']?)[^\s"',;}\]]{4,}
    | (?P<url>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?=@)
    | \b(?:sk|pk|rk)-[a-z0-9_-]{8,}
    | \b(?:gh[pousr]_[a-z0-9]{20,}|xox[abprs]-[a-z0-9-]{10,}|AIza[a-z0-9_-]{30,}|AKIA[0-9A-Z]{16})
    """
)
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_ESCAPES |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x1B: "\\e"}
_ESCAPES |= {
    code: f"\\u{code:04x}"
    for code in (0x061C, 0x200E, 0x200F, 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
}


class Form(Struct, frozen=True):
    """How messages are written down."""

    as_json: bool = False
    """On stderr and in the file: an object a line, or text."""
    max_bytes: int = 5_000_000
    """Size at which a new file is begun; 0 for never."""
    copies: int = 3
    """Older files that are kept."""


class LogLine(Struct, frozen=True):
    """One message as it may be shown."""

    sequence: int
    """Counts from 1 without gaps."""
    time: float
    """Unix time in seconds."""
    level: str
    logger: str
    message: str


def form_of(settings: LogSettings) -> Form:
    """The form that is configured."""
    return Form(as_json=settings.format == "json", max_bytes=settings.max_file_size, copies=settings.backup_count)


def redact(text: str) -> str:
    """`text` with everything that looks like a credential replaced by `[redacted]`."""

    def hidden(match: re.Match[str]) -> str:
        kept = match["scheme"] or match["name"] or match["field"] or match["url"] or ""
        return f"{kept}[redacted]"

    return _SECRETS.sub(hidden, text)


def escaped(text: str) -> str:
    """`text` as one line: control and direction characters are written out."""
    return text.translate(_ESCAPES)


def message_of(record: logging.LogRecord) -> str:
    """The record's message as one safe line, with the exception named behind it."""
    try:
        text = record.getMessage()
    except (TypeError, ValueError):
        text = f"{record.msg} {record.args!r}"
    if record.exc_info and (error := record.exc_info[1]) is not None:
        place = traceback.extract_tb(error.__traceback__)[-1:]
        where = f" at {Path(place[0].filename).name}:{place[0].lineno}" if place else ""
        text = f"{text} | {type(error).__name__}: {error}{where}"
    if len(text) > MAX_MESSAGE:
        text = text[:MAX_MESSAGE] + "…"
    return escaped(redact(text))


class LogRing(logging.Handler):
    """The latest lines, for whoever shows them."""

    def __init__(self, capacity: int = 5_000) -> None:
        super().__init__()
        self._lines: deque[LogLine] = deque(maxlen=capacity)
        self.last_sequence = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = message_of(record)
            self.last_sequence += 1
            self._lines.append(LogLine(self.last_sequence, record.created, record.levelname, record.name, text))
        except Exception:  # a message that cannot be written must not stop what was logging it
            self.handleError(record)

    def since(self, sequence: int) -> list[LogLine]:
        """Lines after `sequence` that are still kept, oldest first."""
        waiting = min(self.last_sequence - sequence, len(self._lines))
        if waiting <= 0:
            return []
        kept = list(self._lines)
        return kept[-waiting:]

    def last_errors(self, limit: int = 5) -> list[LogLine]:
        """The latest lines of level ERROR and worse, oldest first."""
        return [line for line in self._lines if line.level in ("ERROR", "CRITICAL")][-limit:]


class OneLine(logging.Formatter):
    """`2026-11-21 14:02:11.123 WARNING proxy_core.journal: message`, always one line."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{_clock(record.created)} {record.levelname} {escaped(record.name)}: {message_of(record)}"


class WithTrace(OneLine):
    """The same, with the trace of an exception on lines of its own that begin with `    | `."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        if not record.exc_info or record.exc_info[1] is None:
            return line
        trace = "".join(traceback.format_exception(record.exc_info[1]))
        return "\n".join([line, *(f"    | {escaped(redact(part))}" for part in trace.splitlines())])


class JsonLine(logging.Formatter):
    """`{"time": "2026-11-21T14:02:11.123Z", "level": …, "logger": …, "message": …}`, perhaps with `trace`; all ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        found = {
            "time": f"{moment}.{int(record.created % 1 * 1000):03d}Z",
            "level": record.levelname,
            "logger": escaped(record.name),
            "message": message_of(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            found["trace"] = redact("".join(traceback.format_exception(record.exc_info[1])))
        return json.dumps(found)


def _clock(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))}.{int(seconds % 1 * 1000):03d}"


class PrivateFile(logging.handlers.RotatingFileHandler):
    """A rotating log file that its owner alone can read."""

    def __init__(self, file: Path, form: Form) -> None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        super().__init__(file, maxBytes=form.max_bytes, backupCount=form.copies, encoding="utf-8", delay=False)

    def doRollover(self) -> None:  # noqa: N802 - logging's name
        if not self.backupCount:
            os.truncate(self.baseFilename, 0)  # else it would grow without end
        super().doRollover()

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")


class StderrHandler(logging.StreamHandler[TextIO]):
    """stderr of the moment; a closed one is silence, never an error."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handleError(record)


def stderr_is_ours() -> bool:
    """Whether lines may be written to stderr now: logging does so, and no screen is painted on it."""
    return any(isinstance(handler, StderrHandler) for handler in logging.getLogger().handlers)


def is_worth_saying(record: logging.LogRecord) -> bool:
    """False for the report of a cancellation: servers log one as an error, and it is how a forced end looks from inside."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def configure(
    level: str, ring: LogRing, *, stderr: bool, file: Path | None, stderr_level: str = "WARNING", form: Form | None = None
) -> None:
    """Replace the handlers of the root logger: `ring` always, stderr and a rotating file where asked.

    `level` holds for luthien's own loggers; of libraries, warnings and worse are kept. stderr gets `stderr_level` and worse;
    without it Python's handler of last resort is off too, because the screen is painted on the same stream. Raises OSError
    where the file cannot be opened.
    """
    handlers: list[logging.Handler] = [ring]
    form = form or Form()
    if file is not None:
        written = PrivateFile(file, form)
        written.setFormatter(JsonLine() if form.as_json else WithTrace())
        handlers.append(written)
    if stderr:
        shown = StderrHandler()
        shown.setFormatter(JsonLine() if form.as_json else OneLine())
        shown.setLevel(stderr_level)
        handlers.append(shown)
    logging.lastResort = logging.lastResort if stderr else None
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        if old is not ring:
            old.close()
    for handler in handlers:
        handler.addFilter(is_worth_saying)
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(level: str) -> None:
    """Keep luthien's own messages from `level` on."""
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(level)
