"""Which recorded transaction the gateway is working on: known to its task and those that it starts, and to nothing else.

The replaying client names the transaction in a header that is taken off before the gateway sees the request, so that policies,
sessions and records have what was recorded, and nothing beside it.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from proxy_core.ids import new_ulid
from proxy_core.replay.exchanges import Answered, Exchange

HEADER = b"x-luthien-replay"
MAX_WAIT_S = 3_600.0


@dataclass
class Current:
    """A recorded transaction while it is replayed."""

    number: int
    exchange: Exchange
    transaction_id: str = ""
    """The name that the gateway gave it: the recorded one where it is free."""
    started: float = 0.0
    """The loop's clock when the request was sent."""
    answered: dict[int, Answered] = field(default_factory=dict)
    """Answers to what policies ask, by the number of the call, until they are fetched."""
    used: set[int] = field(default_factory=set)
    """Recorded calls of policies that were made again."""
    notes: list[str] = field(default_factory=list)
    """What could not be done as it was recorded, for people; each once."""

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def answer_to(self, call: bytes) -> Answered | None:
        """What the loopback answers with: to a policy's call by its number, to the client's request where there is none."""
        return self.answered.pop(int(call), None) if call else self.exchange.upstream


_current: ContextVar[Current | None] = ContextVar("replayed_transaction", default=None)


class Names:
    """The transactions under way, by the name in the header and by that of the gateway."""

    def __init__(self, *, new_ids: bool = False) -> None:
        """With `new_ids` transactions get names of their own, not the recorded ones."""
        self._new_ids = new_ids
        self.by_number: dict[bytes, Current] = {}
        self.by_id: dict[str, Current] = {}
        self._taken: set[str] = set()

    def find(self, name: bytes) -> tuple[Current, Answered] | None:
        """The transaction and the answer that the loopback is asked for."""
        number, _, call = name.partition(b".")
        replayed = self.by_number.get(number)
        answer = replayed.answer_to(call) if replayed is not None else None
        return (replayed, answer) if replayed is not None and answer is not None else None

    def front(self, app: ASGIApp) -> ASGIApp:
        """The data plane with each request tied to its recording."""

        async def known(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                headers = scope["headers"]
                number = next((value for name, value in headers if name == HEADER), b"")
                _current.set(self.by_number.get(number))
                scope["headers"] = [one for one in headers if one[0] != HEADER]
            await app(scope, receive, send)

        return known

    def new_id(self, unix_ms: int) -> str:
        """The recorded transaction's own id, so that what is made of ids is the same again; a new one where it is taken."""
        current = _current.get()
        wanted = current.exchange.transaction_id if current is not None else ""
        if current is None or current.transaction_id or self._new_ids or not _is_id(wanted) or wanted in self._taken:
            wanted = new_ulid(unix_ms)
        self._taken.add(wanted)
        if current is not None and not current.transaction_id:
            current.transaction_id = wanted
            self.by_id[wanted] = current
        return wanted


def current() -> Current | None:
    """What the running task replays."""
    return _current.get()


def wait_s(recorded: float) -> float:
    """A recorded pause as it is waited: times in recordings may say anything."""
    return min(max(0.0, recorded), MAX_WAIT_S)


def _is_id(text: str) -> bool:
    return len(text) == 26 and text.isascii() and text.isalnum()
