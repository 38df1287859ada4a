"""`message_logger`: conversations as JSON lines, one for each request, answer or error.

Lines are gathered and written together: `buffer_size` of them, after a second at the latest, the rest when luthien stops.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct
from pydantic import Field, field_validator

from proxy_core.interceptors import files
from proxy_core.interceptors.base import Begun, Config, Finished, Interceptor, timestamp_of
from proxy_core.interceptors.event_content import said
from proxy_core.interceptors.event_requests import holder_of
from proxy_core.interceptors.events import SPEAKING, fault_of_finished
from proxy_core.interceptors.redaction import safe_line
from proxy_core.interceptors.surroundings import Surroundings

KEEP_S = 1.0
"""Longest time that a line waits to be written."""
_UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class MessageLoggerConfig(Config):
    directory: str = "./message_logs"
    """Folder of the file, from the working folder."""
    filename: str = "message_log.jsonl"
    """Name of the file."""
    include_system_prompts: bool = True
    """Whether system prompts and instructions stay in the requests."""
    include_metadata: bool = True
    """Whether lines have `metadata`: path, method, status, times, who asked."""
    buffer_size: int = Field(default=10, ge=1, le=100_000)
    """Lines that are gathered before they are written."""
    redact_credentials: bool = True
    """Whether all that looks like a key is taken out; the credentials of the request itself always are."""

    @field_validator("filename")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not value or "/" in value or value in (".", ".."):
            raise ValueError("give the name of a file, without a folder")
        return value


class _Entry(Struct):
    role: Any = None


_encoder = msgspec.json.Encoder()
_entry = msgspec.json.Decoder(_Entry)
_fields = msgspec.json.Decoder(dict[str, Raw])


class MessageLogger(Interceptor[MessageLoggerConfig]):
    """Writes conversations down."""

    config_model = MessageLoggerConfig

    def __init__(self, config: MessageLoggerConfig, surroundings: Surroundings) -> None:
        super().__init__(config, surroundings)
        self._file = Path(config.directory).expanduser().absolute() / config.filename
        self._lines: list[bytes] = []
        self._since = 0.0

    def begun(self, begun: Begun) -> None:
        if begun.operation not in SPEAKING:
            return
        line = self._head(begun, begun.started_at, "request")
        line["request"] = _as_json(self._request(begun))
        line["model"] = begun.model or None
        if self.config.include_metadata:
            line["metadata"] = {"path": begun.path, "method": begun.method, "is_streaming": begun.stream, **_who(begun)}
        self._add(begun, line, clean=begun.shown_body is begun.body)

    def finished(self, finished: Finished) -> None:
        begun = finished.begun
        if begun.operation not in SPEAKING:
            return
        fault = fault_of_finished(finished)
        line = self._head(begun, finished.finished_at, "response" if fault is None else "error")
        if fault is not None:
            line["error"] = {"type": fault.type, "message": fault.message}
        body = finished.readable_body
        if body:
            line["response"] = _as_json(body) if not finished.is_stream else self._stream(finished, body)
        line["model"] = finished.model or None
        if self.config.include_metadata:
            usage = {"input_tokens": finished.input_tokens, "output_tokens": finished.output_tokens}
            line["metadata"] = {
                "status_code": finished.status,
                "duration_ms": finished.total_ms,
                "outcome": finished.outcome,
                "usage": usage,
                "cost_usd": finished.cost_usd,
                **_who(begun),
            }
        self._add(begun, line, clean=fault is None and not finished.is_stream and finished.shown_body is body)

    def flush(self, now: float) -> None:
        if not self._lines:
            self._since = now
        elif len(self._lines) >= self.config.buffer_size or now - self._since >= KEEP_S:
            self._since = now
            self._write()

    def close(self) -> None:
        if self._lines:
            self._write()

    def _write(self) -> None:
        lines, self._lines = self._lines, []
        try:
            files.append(self._file, b"".join(lines))
        except OSError:
            self.dropped += len(lines)
            raise

    def _head(self, begun: Begun, at: float, direction: str) -> dict[str, Any]:
        return {
            "timestamp": timestamp_of(at),
            "transaction_id": begun.transaction_id,
            "session_id": begun.session_id or None,
            "direction": direction,
            "provider": begun.dialect,
        }

    def _add(self, begun: Begun, line: dict[str, Any], *, clean: bool) -> None:
        """Take a line; `clean` says that there is nothing to take out of what it quotes."""
        encoded = _encoder.encode(line)
        self._lines.append(
            (encoded if clean else safe_line(encoded, begun.secrets, formats=self.config.redact_credentials)) + b"\n"
        )

    def _stream(self, finished: Finished, body: bytes) -> dict[str, Any]:
        read = {name.removeprefix("llm.response."): value for name, value in said(finished).items()}
        return {**read, "raw_sse": body.decode("utf-8", "replace")}

    def _request(self, begun: Begun) -> bytes:
        if self.config.include_system_prompts:
            return begun.body
        try:
            fields = _fields.decode(begun.body)
        except _UNREADABLE:
            return begun.body
        for name in ("system", "instructions"):
            fields.pop(name, None)
        holder = holder_of(fields)
        if holder is not None:
            kept = [entry for entry in begun.history if not _is_system(entry)]
            fields[holder] = Raw(b"[" + b",".join(kept) + b"]")
        return msgspec.json.encode(fields)


def _as_json(body: bytes) -> Raw:
    """A body as a JSON value on one line; one that is no JSON as text."""
    try:
        msgspec.json.decode(body, type=Raw)
    except _UNREADABLE:
        return Raw(msgspec.json.encode(body.decode("utf-8", "replace")))
    return Raw(msgspec.json.format(body, indent=-1) if b"\n" in body or b"\r" in body else body)


def _is_system(entry: memoryview) -> bool:
    try:
        return _entry.decode(entry).role in ("system", "developer")
    except _UNREADABLE:
        return False


def _who(begun: Begun) -> dict[str, Any]:
    """Who asked, as far as it is known."""
    known: dict[str, Any] = {}
    if begun.agent:
        known["agent"] = begun.agent
    if begun.user:
        known["user"] = begun.user
    if begun.workflow:
        known["workflow"] = begun.workflow
    if begun.parent_session:
        known["parent_session"] = begun.parent_session
    if begun.tags:
        known["tags"] = dict(begun.tags)
    return known
