"""The event feed: what happens in the gateway, in order, for anyone who watches.

The gateway appends and never waits; readers pull with a cursor of their own. A reader that falls behind
loses the oldest records and is told so; it can never slow the traffic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from proxy_core.control.rows import TransactionRow

FeedKind = Literal["started", "routed", "policy", "held", "released", "first_token", "finished", "control_changed"]


class FeedRecord(NamedTuple):
    """One thing that happened. `row` is the live row itself, so it may be newer than the record."""

    sequence: int
    kind: FeedKind
    row: TransactionRow | None
    """None where it concerns no transaction (`control_changed`)."""
    note: str = ""
    """What exactly, for people and programs: the policy that spoke, the hold's id, what was changed by whom."""


_new: Callable[[type[FeedRecord], tuple[int, FeedKind, TransactionRow | None, str]], FeedRecord] = tuple.__new__


class Feed:
    """A bounded ring of the latest records, numbered from 1 without gaps."""

    def __init__(self, capacity: int = 10_000) -> None:
        self._ring: deque[FeedRecord] = deque(maxlen=capacity)
        self.last_sequence = 0

    def publish(self, kind: FeedKind, row: TransactionRow | None, note: str = "") -> None:
        self.last_sequence += 1
        if row is not None:
            row.version += 1
        # Past the constructor, which is Python code: this is called four times in each transaction.
        self._ring.append(_new(FeedRecord, (self.last_sequence, kind, row, note)))

    def since(self, sequence: int, limit: int = 2_000) -> tuple[list[FeedRecord], int]:
        """Records after `sequence`, oldest first, at most `limit`; and how many were lost before the first of them."""
        waiting = self.last_sequence - sequence
        if waiting <= 0:
            return [], 0
        kept = len(self._ring)
        lost = max(0, waiting - kept)
        start = kept - (waiting - lost)
        ring = self._ring
        return [ring[i] for i in range(start, min(kept, start + limit))], lost
