"""Requests that belong to another session without saying so: sub-agents, and titles asked for beside a conversation.

A sub-agent is told by its task: its opening says what a call of a tool that still runs in the parent's session hands on.
A title or summary is told by its system prompt and by the words of the conversation that it quotes. Only openings are
looked at, and only while there is something that they could belong to.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from proxy_core.wire.conversation import ToolCallBlock

CALL_TTL_S = 1_800.0
MAX_CALLS = 256
OPENING_TTL_S = 120.0
MAX_OPENINGS = 64
MIN_EQUAL_CHARS = 8
MIN_QUOTED_CHARS = 24
MAX_TEXT_BYTES = 16_000

_DELEGATES = re.compile(r"(?i)task|agent|delegat|hand_?off|transfer|spawn|dispatch|worker|specialist")
_TASK_FIELDS = ('"prompt"', '"task"', '"instructions"')


class _Call(Struct, frozen=True):
    session_id: str
    task: str
    at: float


_Opening: TypeAlias = tuple[str, int, bytes, float]
"""Session, client, what it quotes or opens with, and when: a plain tuple, for one is made for every session."""


class RunningCalls:
    """The tasks that sessions have handed on by a tool call which they have not had answered."""

    def __init__(self) -> None:
        self.running: deque[_Call] = deque(maxlen=MAX_CALLS)

    def started(self, session_id: str, calls: Iterable[ToolCallBlock], now: float) -> bool:
        """Note the calls of an answer; true where one of them may start a sub-agent."""
        found = False
        for call in calls:
            if len(call.arguments) > MAX_TEXT_BYTES:
                continue
            if _DELEGATES.search(call.name) or any(field in call.arguments for field in _TASK_FIELDS):
                for task in _tasks(call.arguments):
                    self.running.append(_Call(session_id, task, now))
                    found = True
        return found

    def ended(self, session_id: str) -> None:
        """The session went on: its calls have been answered."""
        self.running = deque((call for call in self.running if call.session_id != session_id), maxlen=MAX_CALLS)

    def parent_of(self, history: Sequence[memoryview], now: float) -> str:
        """The session whose call started the one that opens with `history`; empty where none did."""
        text = text_of(history[-1])
        if len(text) < MIN_EQUAL_CHARS:
            return ""
        for call in reversed(self.running):
            if now - call.at <= CALL_TTL_S and (call.task == text or (len(call.task) >= MIN_QUOTED_CHARS and call.task in text)):
                self.running.remove(call)
                return call.session_id
        return ""


class SideOpenings:
    """Recent openings of conversations, and of side requests that quote one which has not begun yet.

    Both come from one client, and each conversation has one side request of this kind at most.
    """

    def __init__(self) -> None:
        self._conversations: deque[_Opening] = deque(maxlen=MAX_OPENINGS)
        self.waiting: deque[_Opening] = deque(maxlen=MAX_OPENINGS)

    def conversation(self, session_id: str, client: int, history: Sequence[memoryview], now: float) -> None:
        """Note the opening of a conversation."""
        last = history[-1]
        if len(last) <= MAX_TEXT_BYTES:
            self._conversations.append((session_id, client, bytes(last), now))

    def waiting_for(self, client: int, history: Sequence[memoryview], now: float) -> str:
        """The session that a side request opened for the conversation that begins with `history`; empty for most."""
        said = text_of(history[-1])
        for opening in self.waiting:
            session_id, asking, quoting, at = opening
            if asking == client and now - at <= OPENING_TTL_S and _quotes(quoting.decode("utf-8", "replace"), said):
                self.waiting.remove(opening)
                return session_id
        return ""

    def quoted_by(self, client: int, history: Sequence[memoryview], now: float) -> str:
        """The session of the conversation whose opening this side request quotes; empty where none is known."""
        quoting = "\n".join(text_of(entry) for entry in history[-3:])
        for opening in reversed(self._conversations):
            session_id, talking, first, at = opening
            if now - at > OPENING_TTL_S:
                break
            if talking == client and _quotes(quoting, text_of(memoryview(first))):
                self._conversations.remove(opening)
                return session_id
        return ""

    def waits(self, session_id: str, client: int, history: Sequence[memoryview], now: float) -> None:
        """Note a side request that came before its conversation."""
        quoting = "\n".join(text_of(entry) for entry in history[-3:])
        self.waiting.append((session_id, client, quoting.encode("utf-8", "replace"), now))


def text_of(entry: memoryview) -> str:
    """The last text of a message; empty where it has none or is very long."""
    if len(entry) > MAX_TEXT_BYTES:
        return ""
    try:
        message = msgspec.json.decode(entry)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    content = message.get("content") if isinstance(message, dict) else message
    if isinstance(content, list):
        texts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        content = texts[-1] if texts else ""
    return content.strip() if isinstance(content, str) else ""


def _quotes(quoting: str, said: str) -> bool:
    """Whether one text holds another; short ones have to stand on a line of their own."""
    if len(said) >= MIN_QUOTED_CHARS:
        return said in quoting
    return bool(said) and said in [line.strip() for line in quoting.split("\n")]


def _tasks(arguments: str) -> list[str]:
    try:
        value: Any = msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return []
    if not isinstance(value, dict):
        return []
    texts = [one.strip() for one in value.values() if isinstance(one, str)]
    return [text for text in texts if len(text) >= MIN_EQUAL_CHARS][:8]
