"""Checks that a stream keeps the rules of its dialect: of what we send, and of anything else that claims to be one.

Takes bytes cut anywhere and never raises. Without `strict` only what breaks clients counts; with it also what luthien promises
of streams that it made or changed (numbers without gaps, texts that agree with their pieces, reasons that are true).
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from proxy_core.wire.dialects import Operation
from proxy_core.wire.ndjson import NdjsonParser
from proxy_core.wire.sse import SseParser


class Violation(Struct, frozen=True):
    """A rule that a stream breaks."""

    rule: str
    message: str


class Rules(Protocol):
    """The rules of one dialect, applied to one stream."""

    def event(self, name: str, data: bytes) -> None:
        """One event with data; comments do not count."""
        ...

    def end(self) -> None:
        """The stream has ended."""
        ...


class Findings:
    """Base of the rules: where they say what they found."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.found: list[Violation] = []
        self.events = 0

    def say(self, rule: str, message: str) -> None:
        self.found.append(Violation(rule, message))

    def event(self, name: str, data: bytes) -> None:
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError


class StreamValidator:
    """Checks one stream. Raises ValueError for an operation whose streams luthien does not read."""

    def __init__(self, operation: Operation, *, strict: bool = False) -> None:
        self._rules = _rules_of(operation, strict)
        self._lines = operation in (Operation.OLLAMA_CHAT, Operation.OLLAMA_GENERATE)
        self._sse = SseParser()
        self._ndjson = NdjsonParser()

    def feed(self, chunk: bytes) -> list[Violation]:
        """What the events that `chunk` completed break."""
        rules = self._rules
        if self._lines:
            for line in self._ndjson.feed(chunk):
                if line.raw.strip():
                    rules.events += 1
                    rules.event("", line.data)
        else:
            for event in self._sse.feed(chunk):
                if event.data is not None:
                    rules.events += 1
                    rules.event(event.event, event.data)
        return self._taken()

    def finish(self) -> list[Violation]:
        """What the stream breaks now that it has ended."""
        rules = self._rules
        if (self._ndjson.rest if self._lines else self._sse.rest).strip():
            rules.say("whole_events", "the stream ends inside an event")
        elif not rules.events:
            rules.say("non_empty", "the stream has no events")
        else:
            rules.end()
        return self._taken()

    def _taken(self) -> list[Violation]:
        found = self._rules.found
        if found:
            self._rules.found = []
        return found


def check_stream(operation: Operation, body: bytes, *, strict: bool = False) -> list[Violation]:
    """Everything that a whole stream breaks."""
    validator = StreamValidator(operation, strict=strict)
    return [*validator.feed(body), *validator.finish()]


def _rules_of(operation: Operation, strict: bool) -> Findings:
    from proxy_core.wire import validate_chat, validate_messages, validate_ollama, validate_responses

    if operation in (Operation.CHAT, Operation.COMPLETIONS):
        return validate_chat.ChatRules(strict)
    if operation is Operation.RESPONSES:
        return validate_responses.ResponsesRules(strict)
    if operation is Operation.MESSAGES:
        return validate_messages.MessagesRules(strict)
    if operation in (Operation.OLLAMA_CHAT, Operation.OLLAMA_GENERATE):
        return validate_ollama.OllamaRules(strict)
    raise ValueError(f"{operation.value} has no streams that can be checked")
