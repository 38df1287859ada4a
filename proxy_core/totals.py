"""Totals: what a number of requests came to, in the words that journal, control and screen share. It knows nobody."""

from __future__ import annotations

from msgspec import Struct


class Totals(Struct, kw_only=True):
    """What a number of requests came to."""

    requests: int = 0
    """All of them: turns, retries, side requests, refused ones, and those that run."""
    running: int = 0
    input_tokens: int = 0
    """Cached ones included."""
    output_tokens: int = 0
    """Reasoning included."""
    cached_tokens: int = 0
    """Read from a cache."""
    cache_write_tokens: int = 0
    """Written to one."""
    reasoning_tokens: int = 0
    estimated: int = 0
    """Requests whose token counts are estimated, because the upstream told none."""
    cost_usd: float | None = None
    """Of the requests whose price is known; None where it is of none."""
    unpriced: int = 0
    """Requests that were answered with tokens and that `cost_usd` leaves out, because their price is unknown."""
    tool_calls: int = 0
    """Calls that answers asked for."""
    errors: int = 0
    """Requests that failed in any way: refused, error, truncated, lost."""
    cancelled: int = 0
    """Requests whose client left."""
    flagged: int = 0
    modified: int = 0
    """Requests that a policy changed; where several verdicts stand, the worst one counts."""
    held: int = 0
    denied: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def add(self, other: Totals) -> None:
        """Count the requests of `other` too."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + other.cost_usd


_COUNTS = tuple(name for name in Totals.__struct_fields__ if name != "cost_usd")
