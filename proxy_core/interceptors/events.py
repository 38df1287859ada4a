"""Transactions as events of schema 1.0: what a session did, in the words of Cylestio's collectors.

`session.start`, `session.end`, `llm.call.start`, `llm.call.finish`, `llm.call.error`, `tool.execution`, `tool.result`. Each call
that starts is finished or has an error; each session that starts ends, by inactivity, because too many others came, or with
the gateway. Whatever an event quotes of the traffic is redacted here. Used from one thread.
"""

from __future__ import annotations

import hashlib
import platform
import socket
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from proxy_core.interceptors.base import Begun, Finished, timestamp_of
from proxy_core.interceptors.event_content import arguments_of, said
from proxy_core.interceptors.event_errors import AnswerFault, fault_of, type_of_status
from proxy_core.interceptors.event_requests import new_results, offered_tools, prompt_of, request_data
from proxy_core.interceptors.event_sessions import KnownSession, KnownSessions, WaitingCall
from proxy_core.interceptors.redaction import safe_json

SCHEMA_VERSION = "1.0"
SPEAKING = frozenset({"chat", "completions", "responses", "messages", "ollama_chat", "ollama_generate"})
"""Operations in which a model speaks; the others make no events."""


class Event(Struct, frozen=True, kw_only=True):
    """One event; encoded as JSON it is what collectors expect."""

    schema_version: str = SCHEMA_VERSION
    timestamp: str
    """ISO 8601 with offset."""
    trace_id: str
    """32 hexadecimal digits, the same for all of a session."""
    span_id: str
    """16 hexadecimal digits, the same for start and end of a call, and for a tool's execution and result."""
    name: str
    level: str = "INFO"
    agent_id: str
    session_id: str
    attributes: dict[str, Any]
    _line: bytes = b""

    @property
    def line(self) -> bytes:
        """The event as JSON on one line; made once."""
        if not self._line:
            told = _Told(
                self.schema_version,
                self.timestamp,
                self.trace_id,
                self.span_id,
                self.name,
                self.level,
                self.agent_id,
                self.session_id,
                self.attributes,
            )
            msgspec.structs.force_setattr(self, "_line", _encoder.encode(told))
        return self._line


class _Told(Struct, gc=False):
    """What an event is as JSON."""

    schema_version: str
    timestamp: str
    trace_id: str
    span_id: str
    name: str
    level: str
    agent_id: str
    session_id: str
    attributes: dict[str, Any]


_encoder = msgspec.json.Encoder()


class EventMaker:
    """Makes the events of one gateway's transactions, in order."""

    def __init__(
        self, *, max_sessions: int = 10_000, idle_s: float = 3_600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._sessions = KnownSessions(limit=max_sessions, idle_s=idle_s)
        self._common: dict[str, Any] = {
            "os.type": platform.system(),
            "os.version": platform.version(),
            "env.python.version": platform.python_version(),
            "env.machine.type": platform.machine(),
            "host.name": socket.gethostname(),
        }

    def events_of(self, record: Begun | Finished) -> list[Event]:
        """The events of one record; empty for a request in which no model speaks."""
        begun = record if isinstance(record, Begun) else record.begun
        if begun.operation not in SPEAKING:
            return []
        return self._begun(record) if isinstance(record, Begun) else self._finished(record)

    def ended_sessions(self) -> list[Event]:
        """The ends of sessions of which nothing has come for long."""
        return [self._end(session, "idle") for session in self._sessions.idle(self._clock())]

    def close(self) -> list[Event]:
        """The ends of all sessions: the gateway stops."""
        return [self._end(session, "shutdown") for session in self._sessions.all()]

    # --- a request ---

    def _begun(self, begun: Begun) -> list[Event]:
        events: list[Event] = []
        session = self._session(begun, events)
        first = 0
        if session is not None:
            first = session.first_new(begun.history_hashes, begun.history)
            for result in new_results(begun, first):
                call = session.calls.pop(result.call_id, None)
                waited = None if call is None else round(max(0.0, begun.started_at - call.asked_at) * 1e3, 3)
                attributes: dict[str, Any] = {
                    "tool.id": begun.redacted_text(result.call_id) or None,
                    "tool.name": result.name or (call.name if call is not None else None),
                    "tool.status": "error" if result.failed else "success",
                    "tool.execution_time_ms": waited,
                    "tool.result": begun.redacted_text(result.content),
                }
                span = _span(session.session_id, result.call_id)
                events.append(self._event(begun, "tool.result", begun.started_at, span, attributes))
            if not begun.side:
                session.reached(begun.history_hashes)
        attributes = {
            "llm.vendor": begun.dialect,
            "llm.model": begun.model,
            "llm.request.data": request_data(begun, first),
        }
        if begun.side:
            attributes["llm.request.side"] = True
        events.append(self._event(begun, "llm.call.start", begun.started_at, _span(begun.transaction_id), attributes))
        return events

    def _session(self, begun: Begun, events: list[Event]) -> KnownSession | None:
        """The session of a request, with its start where it is new."""
        if not begun.session_id:
            return None
        now = self._clock()
        session = self._sessions.get(begun.session_id, now)
        if session is None:
            session = KnownSession(begun.session_id, _trace(begun), begun.agent, begun.workflow, now)
            if (forgotten := self._sessions.add(session)) is not None:
                events.append(self._end(forgotten, "evicted"))
            attributes = {
                "user.id": begun.user or None,
                "client.type": "gateway",
                "llm.vendor": begun.dialect,
                "llm.model": begun.model,
                "tools": offered_tools(begun),
                "prompt": begun.redacted_text(prompt_of(begun)),
            }
            if begun.parent_session:
                attributes["session.parent_id"] = begun.parent_session
            if begun.predecessor:
                attributes["session.predecessor_id"] = begun.predecessor
            events.append(self._event(begun, "session.start", begun.started_at, _span("start", begun.session_id), attributes))
        session.agent = begun.agent or session.agent
        session.workflow = begun.workflow or session.workflow
        return session

    # --- an answer ---

    def _finished(self, finished: Finished) -> list[Event]:
        begun = finished.begun
        usage = finished.input_tokens, finished.output_tokens
        attributes: dict[str, Any] = {
            "llm.vendor": begun.dialect,
            "llm.model": finished.model,
            "llm.response.duration_ms": finished.total_ms,
            "llm.usage.input_tokens": usage[0],
            "llm.usage.output_tokens": usage[1],
            "llm.usage.total_tokens": None if usage[0] is None or usage[1] is None else usage[0] + usage[1],
        }
        if finished.estimated:
            attributes["llm.usage.estimated"] = True
        if finished.cost_usd is not None:
            attributes["llm.usage.cost_usd"] = finished.cost_usd
        span = _span(begun.transaction_id)
        fault = fault_of_finished(finished)
        if fault is not None:
            attributes["error.type"] = begun.redacted_text(fault.type)
            attributes["error.message"] = begun.redacted_text(fault.message)
            attributes["http.status_code"] = finished.status
            return [self._event(begun, "llm.call.error", finished.finished_at, span, attributes, level="ERROR")]
        attributes |= said(finished)
        events = [self._event(begun, "llm.call.finish", finished.finished_at, span, attributes)]
        session = self._sessions.get(begun.session_id, self._clock()) if begun.session_id else None
        for call in finished.answer.tool_calls if finished.may_call_tools else ():
            key = call.call_id or call.name
            if session is not None:
                session.ask(key, WaitingCall(call.name, finished.finished_at))
            attributes = {
                "tool.id": begun.redacted_text(call.call_id) or None,
                "tool.name": begun.redacted_text(call.name),
                "tool.params": safe_json(arguments_of(call.arguments), begun.secrets),
            }
            events.append(self._event(begun, "tool.execution", finished.finished_at, _span(begun.session_id, key), attributes))
        return events

    # --- the envelope ---

    def _end(self, session: KnownSession, why: str) -> Event:
        attributes: dict[str, Any] = {"session.id": session.session_id, "session.end_reason": why, **self._common}
        if session.workflow:
            attributes["agent_workflow.id"] = session.workflow
        return Event(
            timestamp=timestamp_of(time.time()),
            trace_id=session.trace_id,
            span_id=_span("end", session.session_id),
            name="session.end",
            agent_id=session.agent or "unknown",
            session_id=session.session_id,
            attributes=attributes,
        )

    def _event(
        self, begun: Begun, name: str, at: float, span_id: str, attributes: dict[str, Any], *, level: str = "INFO"
    ) -> Event:
        attributes["session.id"] = begun.session_id
        attributes |= self._common
        if begun.workflow:
            attributes["agent_workflow.id"] = begun.workflow
        if begun.tags:
            attributes["session.tags"] = dict(begun.tags)
        return Event(
            timestamp=timestamp_of(at),
            trace_id=_trace(begun),
            span_id=span_id,
            name=name,
            level=level,
            agent_id=begun.agent or "unknown",
            session_id=begun.session_id,
            attributes=attributes,
        )


def fault_of_finished(finished: Finished) -> AnswerFault | None:
    """Why a call failed; None where it did not."""
    status, dialect = finished.status or 0, finished.begun.dialect
    if finished.outcome == "ok":
        return None
    if finished.outcome in ("cancelled", "truncated"):
        return AnswerFault(finished.outcome, finished.error or finished.answer_error or "the answer is not whole")
    if finished.is_stream:
        word, _, message = finished.answer_error.partition(": ")
        if word and not finished.error:
            return AnswerFault(word, message)
    else:
        found = fault_of(dialect, status, finished.readable_body)
        if found is not None:
            return found
    if finished.outcome == "refused" and status < 400:
        return AnswerFault("refused", finished.error or "a policy refused")
    return AnswerFault(type_of_status(dialect, status) if status >= 400 else "error", finished.error or f"HTTP {status}")


def _trace(begun: Begun) -> str:
    return _trace_of(begun.session_id or begun.transaction_id)


@lru_cache(maxsize=1_000)
def _trace_of(session_id: str) -> str:
    return hashlib.md5(session_id.encode("utf-8"), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=1_000)
def _span(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8"), digest_size=8).hexdigest()
