"""Counts over all transactions of a replay."""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from proxy_core.replay.comparing import KINDS
from proxy_core.replay.exchanges import Recording
from proxy_core.replay.replaying import Replayed


class Summary(Struct, kw_only=True):
    """What a replay came to. Sums leave out what is unknown on either side."""

    transactions: int = 0
    """In the recording, as far as they were asked for."""
    replayed: int = 0
    same: int = 0
    different: int = 0
    differences: dict[str, int] = {}
    """Transactions by kind of difference."""
    skipped: dict[str, int] = {}
    """Transactions that were not sent, by the reason."""
    notes: dict[str, int] = {}
    """Transactions by what could not be done as it was recorded."""
    verdicts_before: dict[str, int] = {}
    """Recorded transactions by verdict, of those that were replayed."""
    verdicts: dict[str, int] = {}
    """The same after the replay."""
    input_tokens_before: int = 0
    output_tokens_before: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd_before: float = 0.0
    cost_usd: float = 0.0
    unknown_cost: int = 0
    """Replayed transactions whose cost nobody knows."""
    problems: int = 0
    """Lines, entries and files that could not be used."""
    guessed: int = 0
    """Answers that could be tied to their request only by order."""
    unanswered: int = 0
    """Recorded requests without an end."""
    others: int = 0
    """Entries that are no requests of an API."""
    left: int = 0
    """Replayed transactions whose client had left: what they came to is neither compared nor in the sums."""
    redacted: int = 0
    """Replayed transactions out of whose bodies something had been taken."""


class Counting:
    """Adds up a replay while it runs."""

    def __init__(self, recording: Recording) -> None:
        self._summary = Summary(
            transactions=len(recording.exchanges),
            problems=recording.broken,
            guessed=recording.guessed,
            unanswered=recording.unanswered,
            others=recording.others,
        )
        self._differences: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._after: Counter[str] = Counter()

    def take(self, one: Replayed) -> None:
        total = self._summary
        if one.outcome is None:
            self._skipped[one.skipped] += 1
            return
        total.replayed += 1
        if one.differences:
            total.different += 1
        else:
            total.same += 1
        self._differences.update({difference.kind for difference in one.differences})
        self._notes.update(one.notes)
        total.redacted += "body" in one.exchange.redacted
        before, after = one.exchange.facts, one.outcome.facts
        if before is not None and before.outcome == "cancelled":
            total.left += 1
            return
        self._after[after.verdict] += 1
        total.input_tokens += after.input_tokens or 0
        total.output_tokens += after.output_tokens or 0
        total.cost_usd += after.cost_usd or 0.0
        total.unknown_cost += after.cost_usd is None
        if before is not None:
            self._before[before.verdict] += 1
            total.input_tokens_before += before.input_tokens or 0
            total.output_tokens_before += before.output_tokens or 0
            total.cost_usd_before += before.cost_usd or 0.0

    def summary(self) -> Summary:
        total = self._summary
        total.differences = {kind: self._differences[kind] for kind in KINDS if kind in self._differences}
        total.skipped, total.notes = dict(self._skipped), dict(self._notes)
        total.verdicts_before, total.verdicts = dict(self._before), dict(self._after)
        return total
