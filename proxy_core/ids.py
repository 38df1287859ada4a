"""Identifiers: time-ordered, random, safe in a header, a path and a file name."""

from __future__ import annotations

import os
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)


def new_ulid(unix_ms: int, random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """A ULID (26 characters, Crockford base 32): 48 bits of time, then 80 random bits. Source: the ULID specification."""
    number = (unix_ms << 80) | int.from_bytes(random_bytes(10), "big")
    pairs = [_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)]
    return "".join(pairs)
