"""`printer`: a line for each request, answer, session and tool call.

Secrets are redacted. Where lines go, and what becomes of those that are not taken: `shown_lines`.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy_core.interceptors.base import Begun, Config, Finished, Interceptor
from proxy_core.interceptors.events import SPEAKING, Event, fault_of_finished
from proxy_core.interceptors.redaction import redacted_lines
from proxy_core.interceptors.surroundings import Surroundings

MAX_BODY_CHARS = 2_000
MAX_LINES = 1_000
"""Of one batch."""


class PrinterConfig(Config):
    log_requests: bool = True
    """Whether requests are printed."""
    log_responses: bool = True
    """Whether answers are printed."""
    log_body: bool = False
    """Whether bodies are printed below them, cut to 2,000 characters."""
    show_sessions: bool = True
    """Whether the begin and end of sessions are printed."""
    show_llm_calls: bool = True
    """Whether the lines of model calls say model, messages, tokens and cost."""
    show_tools: bool = True
    """Whether tool calls and results are printed."""


class Printer(Interceptor[PrinterConfig]):
    """Prints what passes."""

    config_model = PrinterConfig

    def __init__(self, config: PrinterConfig, surroundings: Surroundings) -> None:
        super().__init__(config, surroundings)
        self._lines: list[tuple[str, tuple[bytes, ...]]] = []
        """With the credentials that must not stand in them."""

    def begun(self, begun: Begun) -> None:
        if not self.config.log_requests:
            return
        line = f"-> {begun.method} {begun.path}"
        if self.config.show_llm_calls and begun.operation in SPEAKING:
            line += f"{_word(begun.model)}  {_messages(len(begun.history))}{'  stream' if begun.stream else ''}"
        if begun.session_id:
            line += f"  session {_short(begun.session_id)}"
        line += _word(begun.agent)
        if begun.user:
            line += f"  user {begun.user}"
        if begun.workflow:
            line += f"  workflow {begun.workflow}"
        if begun.tags:
            line += _word(" ".join(_tag(*tag) for tag in begun.tags))
        self._line(line, begun)
        if self.config.log_body and begun.body:
            self._say_body(begun, begun.body)

    def finished(self, finished: Finished) -> None:
        if not self.config.log_responses:
            return
        begun = finished.begun
        line = f"<- {finished.status or '---'} {finished.outcome}  {begun.method} {begun.path}"
        if finished.total_ms is not None:
            line += f"  {finished.total_ms:,.0f} ms"
        if self.config.show_llm_calls and begun.operation in SPEAKING:
            if finished.input_tokens is not None or finished.output_tokens is not None:
                line += f"  {_count(finished.input_tokens)} in, {_count(finished.output_tokens)} out"
                line += " (estimated)" if finished.estimated else ""
            if finished.cost_usd is not None:
                line += f"  ${finished.cost_usd:.6f}"
            line += _word(finished.stop_reason)
            if (fault := fault_of_finished(finished)) is not None:
                line += f"  {fault.type}: {fault.message}"
        else:
            line += _word(finished.error)
        if finished.verdict != "allow":
            line += f"  verdict {finished.verdict}"
        self._line(line, begun)
        if self.config.log_body and finished.body:
            self._say_body(begun, finished.readable_body)

    def events(self, events: Sequence[Event]) -> None:
        for event in events:
            told = event.attributes
            if event.name in ("session.start", "session.end") and self.config.show_sessions:
                what = "begins" if event.name == "session.start" else f"has ended ({told.get('session.end_reason')})"
                self._line(f"   session {_short(event.session_id)} {what}, agent {event.agent_id}")
            elif event.name == "tool.execution" and self.config.show_tools:
                params = bytes(told["tool.params"]).decode("utf-8", "replace")
                self._line(f"   tool {told['tool.name']} {params[:200]}")
            elif event.name == "tool.result" and self.config.show_tools:
                took = told["tool.execution_time_ms"]
                after = f" after {took:,.0f} ms" if took is not None else ""
                self._line(f"   tool {told['tool.name'] or '?'}: {told['tool.status']}{after}")

    def flush(self, now: float) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self.dropped += self.surroundings.show(redacted_lines(lines))

    def close(self) -> None:
        self.flush(0.0)

    def _say_body(self, begun: Begun, body: bytes) -> None:
        cut = body[: 4 * MAX_BODY_CHARS]
        self._line(f"   {begun.redacted(cut).decode('utf-8', 'replace')[:MAX_BODY_CHARS]}")

    def _line(self, text: str, begun: Begun | None = None) -> None:
        """Take a line; one that quotes a request needs it."""
        if len(self._lines) < MAX_LINES:
            self._lines.append((text, begun.secrets if begun is not None else ()))
        else:
            self.dropped += 1


def _word(text: str) -> str:
    return f"  {text}" if text else ""


def _short(session_id: str) -> str:
    return session_id if len(session_id) <= 16 else f"{session_id[:12]}…"


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def _tag(name: str, value: str) -> str:
    return f"#{name}={value}"


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else f"{tokens:,}"
