"""The live view without a screen: every known transaction in order of arrival, and those that a filter shows.

Readers look at `shown`; nothing here draws. Each changed row is tested once against the filter. A new filter is
applied in slices of the caller's budget while the old one stays in force, and a newer one cancels it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable

from proxy_core.control.filters import EVERYTHING, Filter
from proxy_core.control.rows import TransactionRow


class TransactionList:
    """Rows by arrival, at most `capacity`; the oldest are dropped first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.filter: Filter = EVERYTHING
        """The filter in force."""
        self.dropped = 0
        """Rows that were dropped to stay below the capacity."""
        self._rows: list[TransactionRow] = []
        self._first = 0
        self._next = 0
        self._ordinals: dict[str, int] = {}
        self._shown: list[TransactionRow] = self._rows
        self._shown_ordinals: list[int] | None = None
        self._pass: _FilterPass | None = None
        self.generation = 0
        """Grows whenever `shown` was replaced or rows left it, so that cached positions are stale."""

    @property
    def shown(self) -> list[TransactionRow]:
        """The rows that the filter shows, oldest first. Never change it."""
        return self._shown

    @property
    def total(self) -> int:
        return len(self._rows)

    @property
    def filtering(self) -> bool:
        """Whether a new filter is still being applied."""
        return self._pass is not None

    @property
    def progress(self) -> float:
        """How much of the rows the new filter has seen, 0 to 1."""
        if self._pass is None or not self._rows:
            return 1.0
        return (self._pass.position - self._first) / len(self._rows)

    def row(self, transaction_id: str) -> TransactionRow | None:
        ordinal = self._ordinals.get(transaction_id)
        return None if ordinal is None else self._rows[ordinal - self._first]

    def index(self, transaction_id: str) -> int | None:
        """Position in `shown`, None where it is not shown."""
        ordinal = self._ordinals.get(transaction_id)
        if ordinal is None:
            return None
        if self._shown_ordinals is None:
            return ordinal - self._first
        place = bisect_left(self._shown_ordinals, ordinal)
        found = place < len(self._shown_ordinals) and self._shown_ordinals[place] == ordinal
        return place if found else None

    def nearest(self, transaction_id: str) -> int:
        """Position in `shown` of the transaction or of the one that stands where it would; 0 for an unknown one."""
        ordinal = self._ordinals.get(transaction_id, self._first)
        last = max(0, len(self._shown) - 1)
        if self._shown_ordinals is None:
            return min(ordinal - self._first, last)
        return min(bisect_left(self._shown_ordinals, ordinal), last)

    def prepend(self, rows: Iterable[TransactionRow]) -> None:
        """Put finished rows of the past (oldest first) before everything known; those already known are skipped."""
        old = [row for row in rows if row.transaction_id not in self._ordinals]
        old = old[max(0, len(old) - max(0, self.capacity - len(self._rows))) :]
        if not old:
            return
        self._first -= len(old)
        self._rows[0:0] = old
        for place, row in enumerate(old):
            self._ordinals[row.transaction_id] = self._first + place
        if self._shown_ordinals is not None:
            keep = [(self._first + i, row) for i, row in enumerate(old) if self.filter.matches(row)]
            self._shown[0:0] = [row for _, row in keep]
            self._shown_ordinals[0:0] = [ordinal for ordinal, _ in keep]
        if self._pass is not None:
            self._pass = _FilterPass(self._pass.filter, self._first)
        self.generation += 1

    def fold(self, row: TransactionRow) -> bool:
        """Take in a row that is new or has changed; returns whether it is new."""
        ordinal = self._ordinals.get(row.transaction_id)
        if ordinal is None:
            ordinal = self._next
            self._next += 1
            self._ordinals[row.transaction_id] = ordinal
            self._rows.append(row)
            if self._shown_ordinals is not None and self.filter.matches(row):
                self._shown.append(row)
                self._shown_ordinals.append(ordinal)
            if len(self._rows) > self.capacity + self.capacity // 50:
                self._drop_oldest()
            return True
        place = ordinal - self._first
        if self._rows[place] is not row:
            self._replace(place, ordinal, row)
        if self._shown_ordinals is not None:
            self._retest(ordinal, row)
        if self._pass is not None and ordinal < self._pass.position:
            self._pass.changed.add(ordinal)
        return False

    def set_filter(self, new: Filter) -> None:
        """Start to apply `new`; `advance` does the work. No filter at all is in force at once."""
        self._pass = None
        if not new:
            self.filter = new
            self._shown, self._shown_ordinals = self._rows, None
            self.generation += 1
        else:
            self._pass = _FilterPass(new, self._first)

    def advance(self, budget_s: float, clock: Callable[[], float]) -> bool:
        """Go on applying the new filter for about `budget_s`; returns whether it came into force now."""
        running = self._pass
        if running is None:
            return False
        deadline = clock() + budget_s
        matches, rows = running.filter.matches, self._rows
        running.position = max(running.position, self._first)
        while running.position < self._next:
            stop = min(running.position + 256, self._next)
            for ordinal in range(running.position, stop):
                row = rows[ordinal - self._first]
                if matches(row):
                    running.rows.append(row)
                    running.ordinals.append(ordinal)
            running.position = stop
            if clock() >= deadline:
                return False
        self._take_over(running)
        return True

    def _take_over(self, done: _FilterPass) -> None:
        cut = bisect_left(done.ordinals, self._first)
        self.filter = done.filter
        self._shown, self._shown_ordinals = done.rows[cut:], done.ordinals[cut:]
        self._pass = None
        for ordinal in done.changed:
            if ordinal >= self._first:
                self._retest(ordinal, self._rows[ordinal - self._first])
        self.generation += 1

    def _replace(self, place: int, ordinal: int, row: TransactionRow) -> None:
        self._rows[place] = row
        if self._shown_ordinals is not None:
            shown_at = bisect_left(self._shown_ordinals, ordinal)
            if shown_at < len(self._shown_ordinals) and self._shown_ordinals[shown_at] == ordinal:
                self._shown[shown_at] = row

    def _retest(self, ordinal: int, row: TransactionRow) -> None:
        assert self._shown_ordinals is not None  # noqa: S101 - callers hold a filter
        place = bisect_left(self._shown_ordinals, ordinal)
        is_shown = place < len(self._shown_ordinals) and self._shown_ordinals[place] == ordinal
        if is_shown == self.filter.matches(row):
            return
        if is_shown:
            del self._shown[place], self._shown_ordinals[place]
        else:
            self._shown.insert(place, row)
            self._shown_ordinals.insert(place, ordinal)
        self.generation += 1

    def _drop_oldest(self) -> None:
        count = len(self._rows) - self.capacity
        for row in self._rows[:count]:
            del self._ordinals[row.transaction_id]
        del self._rows[:count]
        self._first += count
        self.dropped += count
        if self._shown_ordinals is not None:
            cut = bisect_right(self._shown_ordinals, self._first - 1)
            del self._shown[:cut], self._shown_ordinals[:cut]
        self.generation += 1


class _FilterPass:
    """One run of a new filter over all rows."""

    __slots__ = ("changed", "filter", "ordinals", "position", "rows")

    def __init__(self, new: Filter, first: int) -> None:
        self.filter = new
        self.position = first
        self.rows: list[TransactionRow] = []
        self.ordinals: list[int] = []
        self.changed: set[int] = set()
