"""The live view without a screen: every known transaction in order of arrival, and those that a filter shows.

Readers look at `shown`; nothing here draws. Each changed row is tested once against the filter. A new filter is
applied in slices of the caller's budget while the old one stays in force, and a newer one cancels it. Older rows of ended
transactions rest as bytes: whoever reads one gets an equal row, not the one that was folded in.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import overload

from proxy_core.control.filters import EVERYTHING, Filter
from proxy_core.control.resting_rows import at_rest, awake
from proxy_core.control.rows import TransactionRow

AWAKE = 2_000
"""The newest rows are kept as they are; the feed holds about as many."""


class TransactionList:
    """Rows by arrival, at most `capacity`; the oldest are dropped first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.filter: Filter = EVERYTHING
        """The filter in force."""
        self.dropped = 0
        """Rows that were dropped to stay below the capacity."""
        self._rows: list[TransactionRow | bytes] = []
        self._first = 0
        self._next = 0
        self._ordinals: dict[str, int] = {}
        self._shown: list[int] | None = None
        """Ordinals of the rows that the filter shows; None shows all."""
        self._pass: _FilterPass | None = None
        self.generation = 0
        """Grows whenever `shown` was replaced or rows left it, so that cached positions are stale."""

    @property
    def shown(self) -> Sequence[TransactionRow]:
        """The rows that the filter shows, oldest first, now and later."""
        return _Shown(self)

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
        return None if ordinal is None else self._row_at(ordinal)

    def index(self, transaction_id: str) -> int | None:
        """Position in `shown`, None where it is not shown."""
        ordinal = self._ordinals.get(transaction_id)
        if ordinal is None:
            return None
        if self._shown is None:
            return ordinal - self._first
        place = bisect_left(self._shown, ordinal)
        found = place < len(self._shown) and self._shown[place] == ordinal
        return place if found else None

    def nearest(self, transaction_id: str) -> int:
        """Position in `shown` of the transaction or of the one that stands where it would; 0 for an unknown one."""
        ordinal = self._ordinals.get(transaction_id, self._first)
        if self._shown is None:
            return min(ordinal - self._first, max(0, len(self._rows) - 1))
        return min(bisect_left(self._shown, ordinal), max(0, len(self._shown) - 1))

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
        if self._shown is not None:
            self._shown[0:0] = [self._first + place for place, row in enumerate(old) if self.filter.matches(row)]
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
            if self._shown is not None and self.filter.matches(row):
                self._shown.append(ordinal)
            place = ordinal - self._first - AWAKE
            if place >= 0:
                self._rows[place] = at_rest(self._rows[place])
            if len(self._rows) > self.capacity + self.capacity // 50:
                self._drop_oldest()
            return True
        self._rows[ordinal - self._first] = row if ordinal >= self._next - AWAKE else at_rest(row)
        if self._shown is not None:
            self._retest(ordinal, row)
        if self._pass is not None and ordinal < self._pass.position:
            self._pass.changed.add(ordinal)
        return False

    def set_filter(self, new: Filter) -> None:
        """Start to apply `new`; `advance` does the work. No filter at all is in force at once."""
        self._pass = None
        if not new:
            self.filter = new
            self._shown = None
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
                if matches(awake(rows[ordinal - self._first])):
                    running.ordinals.append(ordinal)
            running.position = stop
            if clock() >= deadline:
                return False
        self._take_over(running)
        return True

    def _take_over(self, done: _FilterPass) -> None:
        cut = bisect_left(done.ordinals, self._first)
        self.filter = done.filter
        self._shown = done.ordinals[cut:]
        self._pass = None
        for ordinal in done.changed:
            if ordinal >= self._first:
                self._retest(ordinal, self._row_at(ordinal))
        self.generation += 1

    def _row_at(self, ordinal: int) -> TransactionRow:
        return awake(self._rows[ordinal - self._first])

    def _retest(self, ordinal: int, row: TransactionRow) -> None:
        assert self._shown is not None  # noqa: S101 - callers hold a filter
        place = bisect_left(self._shown, ordinal)
        is_shown = place < len(self._shown) and self._shown[place] == ordinal
        if is_shown == self.filter.matches(row):
            return
        if is_shown:
            del self._shown[place]
        else:
            self._shown.insert(place, ordinal)
        self.generation += 1

    def _drop_oldest(self) -> None:
        count = len(self._rows) - self.capacity
        for row in self._rows[:count]:
            del self._ordinals[awake(row).transaction_id]
        del self._rows[:count]
        self._first += count
        self.dropped += count
        if self._shown is not None:
            del self._shown[: bisect_right(self._shown, self._first - 1)]
        self.generation += 1


class _Shown(Sequence[TransactionRow]):
    """What a list shows, read through it."""

    __slots__ = ("_list",)

    def __init__(self, rows: TransactionList) -> None:
        self._list = rows

    def __len__(self) -> int:
        shown = self._list._shown
        return len(self._list._rows if shown is None else shown)

    @overload
    def __getitem__(self, index: int) -> TransactionRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TransactionRow]: ...
    def __getitem__(self, index: int | slice) -> TransactionRow | list[TransactionRow]:
        rows, shown = self._list, self._list._shown
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        return awake(rows._rows[index]) if shown is None else rows._row_at(shown[index])

    def __iter__(self) -> Iterator[TransactionRow]:
        rows, shown = self._list, self._list._shown
        return map(awake, rows._rows) if shown is None else map(rows._row_at, shown)


class _FilterPass:
    """One run of a new filter over all rows."""

    __slots__ = ("changed", "filter", "ordinals", "position")

    def __init__(self, new: Filter, first: int) -> None:
        self.filter = new
        self.position = first
        self.ordinals: list[int] = []
        self.changed: set[int] = set()
