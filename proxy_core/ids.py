"""Identifiers: time-ordered, random, safe in a header, a path and a file name."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_RANDOM_SHIFTS = tuple(range(70, -1, -10))
_POOL_BYTES = 4_000


class _RandomPool:
    """Random bytes from the system, fetched many at a time: a call for each id costs more than the id."""

    def __init__(self) -> None:
        self._pool = b""
        self._used = 0

    def take(self, count: int) -> bytes:
        if self._used + count > len(self._pool):
            self._pool = os.urandom(_POOL_BYTES)
            self._used = 0
        taken = self._pool[self._used : self._used + count]
        self._used += count
        return taken


_random = _RandomPool().take


def new_ulid(unix_ms: int, random_bytes: Callable[[int], bytes] = _random) -> str:
    """A ULID (26 characters, Crockford base 32): 48 bits of time, then 80 random bits. Source: the ULID specification."""
    number = int.from_bytes(random_bytes(10), "big")
    pairs = _PAIRS
    return _time_part(unix_ms) + "".join([pairs[(number >> shift) & 1023] for shift in _RANDOM_SHIFTS])


@lru_cache(maxsize=2)
def _time_part(unix_ms: int) -> str:
    return "".join([_PAIRS[(unix_ms >> shift) & 1023] for shift in range(40, -1, -10)])


def new_session_id() -> str:
    """A name for a session that has none: short enough to read, random enough for a journal's life."""
    return "s-" + _random(5).hex()
