"""What is left of a minute's requests and tokens, in OpenAI's headers. Pure.

`x-ratelimit-limit-requests`, `-remaining-requests`, `-reset-requests`, and the same for tokens; the reset is the time until
all is there again, as `6m0s` or `120ms`. Where an upstream has sent headers of that name, those stay, and these begin with
`x-luthien-ratelimit-`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

RawHeaders = list[tuple[bytes, bytes]]
_PREFIX, _OWN_PREFIX = b"x-ratelimit-", b"x-luthien-ratelimit-"


class Rate(Struct, frozen=True):
    """One limit as it stands."""

    what: Literal["requests", "tokens"]
    limit: float
    remaining: float
    reset_s: float


def rate_headers(rates: Sequence[Rate], present: RawHeaders) -> RawHeaders:
    """The headers to add to `present`: of requests and of tokens, the limit that has least left."""
    prefix = _OWN_PREFIX if any(name.startswith(_PREFIX) for name, _ in present) else _PREFIX
    found: RawHeaders = []
    for what in ("requests", "tokens"):
        of_kind = [one for one in rates if one.what == what]
        if of_kind:
            tightest = min(of_kind, key=lambda one: one.remaining)
            values = (
                (b"limit", str(int(tightest.limit))),
                (b"remaining", str(max(0, math.floor(tightest.remaining + 1e-9)))),
                (b"reset", duration(tightest.reset_s)),
            )
            found += [(prefix + name + b"-" + what.encode("ascii"), value.encode("ascii")) for name, value in values]
    return found


def duration(seconds: float) -> str:
    """`120ms`, `1s`, `6m0s`."""
    milliseconds = math.ceil(max(0.0, seconds) * 1e3)
    if milliseconds < 1_000:
        return f"{milliseconds}ms"
    whole = math.ceil(milliseconds / 1e3)
    return f"{whole}s" if whole < 60 else f"{whole // 60}m{whole % 60}s"
