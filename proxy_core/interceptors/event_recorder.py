"""`event_recorder`: the events of each session in a file of its own.

`jsonl`: a line an event. `json`: one document a session, whole after every batch; it grows at its end, so that a long session
costs no more than a short one. A session's name is made fit for a file name.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import msgspec

from proxy_core.interceptors import files
from proxy_core.interceptors.base import Config, Interceptor
from proxy_core.interceptors.events import Event
from proxy_core.interceptors.surroundings import Surroundings

_UNFIT = re.compile(r"[^A-Za-z0-9._-]|^\.+")
_TAIL = b"\n]}\n"
MAX_NAME = 100
MAX_TRIES = 1_000
MAX_KNOWN = 1_000
KEEP_S = 2.0
"""Longest time that an event waits for others of its session: a file for each is opened and closed."""


class EventRecorderConfig(Config):
    output_dir: str = "./event_logs"
    """Folder of the files, from the working folder."""
    file_format: Literal["jsonl", "json"] = "jsonl"
    """A line an event, or one document a session."""
    pretty_print: bool = False
    """Whether documents are indented; lines never are."""
    include_metadata: bool = True
    """Whether a file begins with `_metadata`: format, session, time of its beginning."""


class EventRecorder(Interceptor[EventRecorderConfig]):
    """Writes events down, by session."""

    config_model = EventRecorderConfig

    def __init__(self, config: EventRecorderConfig, surroundings: Surroundings) -> None:
        super().__init__(config, surroundings)
        self._folder = Path(config.output_dir).expanduser().absolute()
        self._waiting: dict[str, list[bytes]] = {}
        self._since = 0.0
        self._known: OrderedDict[str, Path] = OrderedDict()
        """Files that have been begun, the least recently used first."""

    def events(self, events: Sequence[Event]) -> None:
        for event in events:
            self._waiting.setdefault(event.session_id, []).append(event.line)

    def flush(self, now: float) -> None:
        if not self._waiting:
            self._since = now
        elif now - self._since >= KEEP_S:
            self._since = now
            self._write()

    def close(self) -> None:
        self._write()

    def _write(self) -> None:
        due, self._waiting = self._waiting, {}
        fault: OSError | None = None
        for session_id, lines in due.items():
            try:
                if self.config.file_format == "jsonl":
                    self._append_lines(session_id, lines)
                else:
                    self._grow_document(session_id, lines)
            except OSError as error:
                self.dropped += len(lines)
                fault = error
        if fault is not None:
            raise fault

    def _append_lines(self, session_id: str, lines: list[bytes]) -> None:
        data = b"\n".join(lines) + b"\n"
        if (known := self._known.get(session_id)) is not None:
            self._known.move_to_end(session_id)
            try:
                files.append_again(known, data)
                return
            except FileNotFoundError:
                pass  # somebody has taken the folder away: begin again
        head = b""
        if self.config.include_metadata:
            head = msgspec.json.encode({"_metadata": self._metadata(session_id)}) + b"\n"
        file = self._folder / f"{file_stem(session_id)}.jsonl"
        files.append(file, data, head=head)
        self._known[session_id] = file
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def _grow_document(self, session_id: str, lines: list[bytes]) -> None:
        if self.config.pretty_print:
            lines = [msgspec.json.format(line, indent=2) for line in lines]
        more = b",\n".join(lines) + _TAIL
        stem = file_stem(session_id)
        for number in range(1, MAX_TRIES):
            # A document that does not end as ours do was cut by a crash, or is somebody else's: it stays as it is.
            file = self._folder / (f"{stem}.json" if number == 1 else f"{stem}.{number}.json")
            try:
                if files.replace_tail(file, _TAIL, b",\n" + more):
                    return
            except FileNotFoundError:
                head = b""
                if self.config.include_metadata:
                    head = b'"_metadata":' + msgspec.json.encode(self._metadata(session_id)) + b","
                files.create(file, b"{" + head + b'"events":[\n' + more)
                return

    def _metadata(self, session_id: str) -> dict[str, Any]:
        return {
            "format": self.config.file_format,
            "session_id": session_id,
            "created_at": datetime.now(UTC).isoformat(),
            "interceptor": "event_recorder",
        }


def file_stem(session_id: str) -> str:
    """`session_<id>` as a file name; names that had to be changed stay apart by a hash."""
    if not session_id:
        return "session_none"
    fit = _UNFIT.sub("_", session_id)[:MAX_NAME]
    if fit != session_id:
        fit = f"{fit}-{blake2b(session_id.encode('utf-8', 'replace'), digest_size=4).hexdigest()}"
    return f"session_{fit}"
