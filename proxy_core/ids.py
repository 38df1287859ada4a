"""Identifiers: time-ordered, random, safe in a header, a path and a file name."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from functools import lru_cache

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LETTERS = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))
"""A letter for each byte: five of its bits, all letters alike."""
_POOL_BYTES = 4_096
_MOMENT_BITS = 26
"""Moments of 2^26 ns: 67 ms."""
_UUID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
    return _time_part(unix_ms) + random_bytes(16).translate(_LETTERS).decode("ascii")


@lru_cache(maxsize=2)
def _time_part(unix_ms: int) -> str:
    return "".join([_ALPHABET[(unix_ms >> shift) & 31] for shift in range(45, -1, -5)])


def uuid_of(ulid: str) -> str:
    """The same 128 bits written as a UUID, for those who expect one."""
    number = 0
    for letter in ulid:
        number = number << 5 | _ALPHABET.index(letter)
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def ulid_of(uuid: str) -> str | None:
    """The ULID that `uuid_of` wrote so; None where the text is no UUID."""
    if _UUID.fullmatch(uuid) is None:
        return None
    number = int(uuid.replace("-", ""), 16)
    return "".join([_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5)])


def new_session_id() -> str:
    """A name for a session that has none: short enough to read, random enough for a journal's life.

    Four letters of the time, which come again after 19 hours, then six random ones: names of one moment stand side by side, so
    that an index of them changes in one place and not all over.
    """
    return f"s-{_moment(time.time_ns() >> _MOMENT_BITS)}{_random(6).translate(_LETTERS).decode('ascii').lower()}"


@lru_cache(maxsize=2)
def _moment(number: int) -> str:
    return "".join([_ALPHABET[(number >> shift) & 31] for shift in (15, 10, 5, 0)]).lower()
