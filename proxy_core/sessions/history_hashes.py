"""Hashes of a message history: one of each message, and the chain over them that stands for each of its prefixes.

The chain leaves out a leading system message, which belongs to the agent and not to the conversation, and what clients
move about from turn to turn (cache marks). A long history that continues one seen before is compared with it, not hashed
again: it costs one comparison of its bytes and the hashes of its new messages.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import accumulate
from typing import TypeAlias

from msgspec import Struct

from proxy_core.wire.glance import Glance

LARGE_BYTES = 12_000
MANY_MESSAGES = 16
"""Smaller histories are hashed sooner than they are looked up."""
KEPT_BYTES = 48 * 1024 * 1024
"""Of long histories with their hashes, to compare later ones with; the least recently used goes first."""
ENTRY_BYTES = 300
"""What is kept for each message beside its text."""
MAX_ENTRIES = 20_000
"""A longer list is no conversation, but tokens; it has no hashes."""
MAX_KEPT_HISTORY = 4 * 1024 * 1024

Digest: TypeAlias = Callable[[bytes | memoryview], bytes]

_CHAIN_BYTES = 16
_new_link = blake2b(digest_size=_CHAIN_BYTES).copy
_CACHE_CONTROL = b'"cache_control"'
_MARK = re.compile(rb',\s*"cache_control"\s*:\s*(?:\{[^{}]*\}|null)|"cache_control"\s*:\s*(?:\{[^{}]*\}|null)\s*,\s*')
_LONE_TEXT = re.compile(
    rb'("content"\s*:\s*)\[\s*\{\s*(?:"type"\s*:\s*"text"\s*,\s*)?"text"\s*:\s*'
    rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*(?:,\s*"type"\s*:\s*"text"\s*)?\}\s*\]',
    re.DOTALL,
)
_SHARED_ENDS = (0, 1, 2, 4, 8)
"""How many messages before its end a long history can be recognised, too: the last ones are edited and carry marks."""


class HashedHistory(Struct, frozen=True, gc=False):
    """What a history hashes to."""

    entries: tuple[bytes, ...]
    """Keyed hash of every entry as it came."""
    steady: Sequence[bytes]
    """Hash of every entry of the chain, without cache marks."""
    chain: Sequence[bytes]
    """For each entry of the conversation the hash of the history up to it; a leading system message is no part of it."""


class _Kept(Struct, frozen=True, gc=False):
    joined: bytes
    first: int
    marked: bool
    keys: tuple[tuple[int, int], ...]
    hashed: HashedHistory


_NOTHING = HashedHistory((), (), ())


class HistoryHasher:
    """Hashes histories, and remembers long ones within `KEPT_BYTES`."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._by_length: dict[int, tuple[_Kept, int]] = {}
        self._bytes = 0

    def of(self, body: Glance, raw: bytes, system: bytes) -> HashedHistory:
        """The hashes of the history of `body`, which was read from `raw`; `system` is the hash of its system prompt."""
        history = body.history
        if not 0 < len(history) <= MAX_ENTRIES:
            return _NOTHING
        first = 0
        if (size := len(body.system)) and len(history) > 1 and len(history[0]) == size:
            # The system prompt is the first message, unless it stands beside the history and is as long by chance.
            first = 0 if body.preamble and len(body.preamble[0]) == size else 1
        marked = _CACHE_CONTROL in raw
        if len(raw) >= LARGE_BYTES or len(history) >= MANY_MESSAGES:
            return self._of_large(history, first, marked, system)
        steady: Sequence[bytes]
        if first:
            steady = tuple(map(self._digest, history[1:]))
            entries = (system, *steady)
        else:
            steady = entries = tuple(map(self._digest, history))
        if marked:
            steady = [self._steady(entry, known) for entry, known in zip(history[first:], steady, strict=True)]
        return HashedHistory(entries, steady, _chain(steady))

    def _of_large(self, history: tuple[memoryview, ...], first: int, marked: bool, system: bytes) -> HashedHistory:
        joined = b",".join(history)
        ends = list(accumulate(map(len, history)))
        known = found = None
        count = 0
        for place in range(len(history) - 1, first - 1, -1):
            known = self._by_length.get(ends[place])
            if known is None or known[1] != place + 1:
                continue
            kept = known[0]
            if kept.first == first and kept.marked is marked and joined.startswith(_head(kept.joined, ends[place] + place)):
                found, count = kept, place + 1
                break
        if found is None:
            steady: Sequence[bytes] = tuple(map(self._digest, history[first:]))
            entries = (system, *steady) if first else tuple(steady)
            if marked:
                steady = [self._steady(entry, one) for entry, one in zip(history[first:], steady, strict=True)]
            hashed = HashedHistory(entries, steady, _chain(steady))
        elif count == len(history) == len(found.hashed.entries):
            self._kept.move_to_end(id(found))
            return found.hashed
        else:
            new = tuple(map(self._digest, history[count:]))
            steady = new
            if marked:
                steady = [self._steady(entry, one) for entry, one in zip(history[count:], new, strict=True)]
            before = found.hashed
            chain = [*before.chain[: count - first], *_chain(steady, before.chain[count - first - 1])]
            hashed = HashedHistory((*before.entries[:count], *new), [*before.steady[: count - first], *steady], chain)
            if len(joined) >= len(found.joined):
                self._drop(found)
        self._keep(joined, ends, first, marked, hashed)
        return hashed

    def _steady(self, entry: memoryview, digest: bytes) -> bytes:
        """The hash of a message in one form, whether its parts carry cache marks or not.

        A lone text part counts as a plain string: many clients write it so where it carries no mark.
        """
        raw = bytes(entry)
        plain = _LONE_TEXT.sub(rb"\1\2", _MARK.sub(b"", raw) if _CACHE_CONTROL in raw else raw)
        return digest if plain == raw else self._digest(plain)

    def _keep(self, joined: bytes, ends: list[int], first: int, marked: bool, hashed: HashedHistory) -> None:
        if len(joined) > MAX_KEPT_HISTORY:
            return
        count = len(ends)
        keys = tuple((ends[count - back - 1], count - back) for back in _SHARED_ENDS if count - back > first)
        kept = _Kept(joined, first, marked, keys, hashed)
        self._kept[id(kept)] = kept
        self._bytes += _size(kept)
        for length, place in keys:
            self._by_length[length] = (kept, place)
        while self._bytes > KEPT_BYTES:
            self._drop(next(iter(self._kept.values())))

    def _drop(self, kept: _Kept) -> None:
        if self._kept.pop(id(kept), None) is None:
            return
        self._bytes -= _size(kept)
        for length, _ in kept.keys:
            known = self._by_length.get(length)
            if known is not None and known[0] is kept:
                del self._by_length[length]


def _size(kept: _Kept) -> int:
    return len(kept.joined) + ENTRY_BYTES * len(kept.hashed.entries) + 1_000


def _head(joined: bytes, end: int) -> bytes:
    return joined if end == len(joined) else joined[:end]


def _chain(hashes: Sequence[bytes], reached: bytes = b"") -> list[bytes]:
    chain = []
    for one in hashes:
        if reached:
            link = _new_link()
            link.update(reached + one)
            reached = link.digest()
        else:
            reached = one
        chain.append(reached)
    return chain
