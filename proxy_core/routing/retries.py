"""Whether a request may be sent once more, and when: pure but for the clock and the dice that are passed in.

A request is sent again only where the upstream did not take it (no connection, 429, 503, 529), or answered that it failed
(500, 502) and leaves nothing behind there; what may have been worked on is sent again only where that is allowed. All attempts
together stay within a share of the requests, so that an upstream in trouble never gets a storm on top.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import parsedate_to_datetime

from proxy_core.routing.health import SlidingCount
from proxy_core.wire.dialects import READ_OPERATIONS, Operation

RawHeaders = list[tuple[bytes, bytes]]

NOT_TAKEN = frozenset({401, 429, 503, 529})
"""Statuses of an upstream that did nothing with the request."""
FAILED = frozenset({500, 502})
"""Statuses of an upstream that tried and gave up; nothing of it runs on."""
LEAVES_NOTHING = READ_OPERATIONS - {Operation.RESPONSES}
"""Operations after which the upstream is as before."""
FAILURES = frozenset({500, 502, 503, 504, 529})
"""Statuses that speak against an upstream's health."""
_FREE_RETRIES = 3


class RetryBudget:
    """Attempts beyond the first: at most a share of the requests of the last seconds, and a few always."""

    def __init__(self, share: float, *, window_s: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.use(share, window_s=window_s)

    def use(self, share: float, *, window_s: float) -> None:
        """Hold to this from now on; what was counted is forgotten."""
        self._share = share
        self._count = SlidingCount(window_s)

    def request(self) -> None:
        """A request begins."""
        self._count.see(self._clock())

    @property
    def left(self) -> bool:
        """Whether one more attempt may be made."""
        requests, retries = self._count.totals(self._clock())
        return retries + 1 <= requests * self._share + _FREE_RETRIES

    def take(self) -> bool:
        """Whether one more attempt may be made; it is counted then."""
        if not self.left:
            return False
        self._count.mark(self._clock())
        return True


def may_send_again(status: int | None, *, unsent: bool, method: str, operation: Operation, unsafe: bool) -> bool:
    """Whether a second attempt does nothing twice. `status` is None where no answer came, `unsent` tells of that case whether
    nothing was sent at all."""
    if unsafe or method in ("GET", "HEAD", "OPTIONS"):
        return True
    if status is None:
        return unsent
    return status in NOT_TAKEN or (status in FAILED and operation in LEAVES_NOTHING)


def retry_after_s(headers: RawHeaders, *, unix_time: float) -> float | None:
    """Seconds that the upstream asks to wait; None where it says nothing that can be read."""
    seconds: float | None = None
    for name, value in headers:
        text = value.decode("latin-1").strip()
        if name.lower() == b"retry-after-ms" and (number := _number(text)) is not None:
            return number / 1e3
        if name.lower() == b"retry-after":
            number = _number(text)
            seconds = number if number is not None else _until(text, unix_time)
    return seconds


def _number(text: str) -> float | None:
    """A plain decimal number; headers know no others."""
    if len(text) > 20 or not text.isascii() or not text.replace(".", "", 1).isdigit():
        return None
    return float(text)


def _until(text: str, unix_time: float) -> float | None:
    try:
        return max(parsedate_to_datetime(text).timestamp() - unix_time, 0.0)
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def full_jitter(number: int, *, base_s: float, cap_s: float, chance: Callable[[], float]) -> float:
    """Pause before the retry with this number, from 1: anything from nothing to a bound that doubles each time.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog.
    """
    bound: float = min(cap_s, base_s * 2 ** min(number - 1, 30))
    return chance() * bound
