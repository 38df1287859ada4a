"""Token buckets: so many units a minute, and so many at once: a minute's worth where nothing else is said.

Pure: the clock is passed in, in seconds. A bucket never holds more than its capacity, and never gives more than it holds;
only settling something that took more than was estimated brings it below zero, and then it gives nothing until it is above.
Source: the token bucket of RFC 2697.
"""

from __future__ import annotations

from msgspec import Struct

MINUTE_S = 60.0
_ROUNDING = 1e-9


class Bucket(Struct):
    """Units that are left, as of the time of the last look."""

    capacity: float
    """The most that it holds, and gives at once."""
    per_minute: float
    level: float
    at: float

    @classmethod
    def full(cls, per_minute: float, now: float, capacity: float | None = None) -> Bucket:
        """A full bucket; without `capacity` it holds a minute's units."""
        holds = capacity or per_minute
        return cls(holds, per_minute, holds, now)

    def look(self, now: float, per_minute: float | None = None, capacity: float | None = None) -> float:
        """The units that are there at `now`; a new rate or capacity holds from now on, and what was used stays used."""
        if now > self.at:
            self.level = min(self.capacity, self.level + (now - self.at) * self.per_minute / MINUTE_S)
            self.at = now
        if per_minute is None:
            return self.level
        self.per_minute, capacity = per_minute, capacity or per_minute
        if capacity != self.capacity:
            self.level = min(self.level + max(0.0, capacity - self.capacity), capacity)
            self.capacity = capacity
        return self.level

    def wait_s(self, amount: float) -> float:
        """Time until it would give `amount`; 0 where it does so now. What is more than it can hold needs a full one."""
        missing = min(amount, self.capacity) - self.level
        return 0.0 if missing <= _ROUNDING * self.capacity else missing * MINUTE_S / self.per_minute

    def take(self, amount: float) -> None:
        """Take `amount`, or all that it can hold where that is less. Ask `wait_s` first."""
        self.level -= min(amount, self.capacity)

    def settle(self, taken: float, used: float) -> None:
        """Put right what was taken on an estimate."""
        self.level = min(self.capacity, self.level + min(taken, self.capacity) - used)

    @property
    def full_in_s(self) -> float:
        """Time until it is full."""
        return max(0.0, self.capacity - self.level) * MINUTE_S / self.per_minute
