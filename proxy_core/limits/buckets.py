"""Token buckets: so many units a minute, a minute's worth of them at once.

Pure: the clock is passed in, in seconds. A bucket never holds more than a minute's units, and never gives more than it holds;
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
    """Units a minute, and the most that it holds."""
    level: float
    at: float

    @classmethod
    def full(cls, capacity: float, now: float) -> Bucket:
        return cls(capacity, capacity, now)

    def look(self, now: float, capacity: float | None = None) -> float:
        """The units that are there at `now`; a new capacity holds from now on, and what was used stays used."""
        if now > self.at:
            self.level = min(self.capacity, self.level + (now - self.at) * self.capacity / MINUTE_S)
            self.at = now
        if capacity is not None and capacity != self.capacity:
            self.level = min(self.level + max(0.0, capacity - self.capacity), capacity)
            self.capacity = capacity
        return self.level

    def wait_s(self, amount: float) -> float:
        """Time until it would give `amount`; 0 where it does so now. What is more than it can hold needs a full one."""
        missing = min(amount, self.capacity) - self.level
        return 0.0 if missing <= _ROUNDING * self.capacity else missing * MINUTE_S / self.capacity

    def take(self, amount: float) -> None:
        """Take `amount`, or all that it can hold where that is less. Ask `wait_s` first."""
        self.level -= min(amount, self.capacity)

    def settle(self, taken: float, used: float) -> None:
        """Put right what was taken on an estimate."""
        self.level = min(self.capacity, self.level + min(taken, self.capacity) - used)

    @property
    def full_in_s(self) -> float:
        """Time until it is full."""
        return max(0.0, self.capacity - self.level) * MINUTE_S / self.capacity
