"""Hashes of histories: what changes them, and that a long history costs by what is new in it."""

from __future__ import annotations

import json
import random
import time
from hashlib import blake2b
from typing import Any

import pytest

from proxy_core.sessions import history_hashes
from proxy_core.sessions.history_hashes import HashedHistory, HistoryHasher
from proxy_core.wire.glance import glance


class Counting:
    """A digest that counts the bytes it was given."""

    def __init__(self) -> None:
        self.hashed = 0

    def __call__(self, content: bytes | memoryview) -> bytes:
        self.hashed += len(content)
        return blake2b(content, digest_size=16).digest()


def hashed(hasher: HistoryHasher, messages: list[dict[str, Any]], **fields: Any) -> HashedHistory:
    raw = json.dumps({"model": "m", "messages": messages, **fields}).encode()
    looked = glance(raw)
    return hasher.of(looked, raw, blake2b(looked.system, digest_size=16).digest())


def conversation(count: int, chars: int, seed: int = 1) -> list[dict[str, Any]]:
    dice = random.Random(seed)
    return [
        {"role": ("user", "assistant")[at % 2], "content": f"{at} " + "".join(dice.choices("abc {}\"'\n", k=chars))}
        for at in range(count)
    ]


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Be brief. " * 50}]])
def test_a_long_history_has_the_same_hashes_whatever_was_seen_before(system: list[dict[str, Any]]) -> None:
    used = HistoryHasher(Counting())
    messages = conversation(60, 800)
    dice = random.Random(7)
    for _ in range(60):
        cut = dice.randint(1, 60)
        history = [*system, *messages[:cut]]
        if dice.random() < 0.4:
            history[-1] = {**history[-1], "content": f"edited {dice.random()}" * 300}
        known, fresh = hashed(used, history), hashed(HistoryHasher(Counting()), history)
        assert known.entries == fresh.entries
        assert list(known.steady) == list(fresh.steady)
        assert list(known.chain) == list(fresh.chain)


def test_only_new_messages_of_a_long_history_are_hashed() -> None:
    count = Counting()
    hasher = HistoryHasher(count)
    messages = conversation(102, 1_500)
    hashed(hasher, messages[:100])
    count.hashed = 0
    hashed(hasher, messages)
    assert count.hashed < 2 * 2_000
    count.hashed = 0
    hashed(hasher, messages)
    assert count.hashed == 0


def test_a_long_history_that_was_edited_at_its_end_is_hashed_from_there() -> None:
    count = Counting()
    hasher = HistoryHasher(count)
    messages = conversation(100, 1_500)
    hashed(hasher, messages)
    count.hashed = 0
    hashed(hasher, [*messages[:98], {"role": "user", "content": "another way"}])
    assert count.hashed < 2 * 2_000


def test_cache_marks_that_move_cost_only_the_messages_they_move_over() -> None:
    count = Counting()
    hasher = HistoryHasher(count)

    def marked(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        last = messages[-1]
        part = {"type": "text", "text": last["content"], "cache_control": {"type": "ephemeral"}}
        return [*messages[:-1], {"role": last["role"], "content": [part]}]

    messages = conversation(103, 1_500)
    before = hashed(hasher, marked(messages[:101]), system="Be brief.")
    count.hashed = 0
    after = hashed(hasher, marked(messages), system="Be brief.")
    assert list(after.chain[:101]) == list(before.chain)
    assert count.hashed < 6 * 2_000


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_hashes, "KEPT_BYTES", 100_000)
    count = Counting()
    hasher = HistoryHasher(count)
    for seed in range(10):
        hashed(hasher, conversation(20, 1_500, seed))
    count.hashed = 0
    hashed(hasher, conversation(20, 1_500, 9))
    assert count.hashed == 0
    hashed(hasher, conversation(20, 1_500, 0))
    assert count.hashed > 25_000


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"content": "x"}, {"content": "x"}, True),
        ({"content": [{"type": "text", "text": "x"}]}, {"content": "x"}, True),
        ({"content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]}, {"content": "x"}, True),
        ({"content": [{"cache_control": {"type": "ephemeral"}, "text": "x", "type": "text"}]}, {"content": "x"}, True),
        ({"content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]}, {"content": "x"}, False),
        ({"content": 'a "cache_control":{} in words'}, {"content": "a in words"}, False),
        ({"content": [{"type": "tool_result", "tool_use_id": "t", "content": "a"}]}, {"content": []}, False),
    ],
)
def test_cache_marks_are_no_part_of_a_message(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    marked = {"role": "user", "content": [{"type": "text", "text": "m", "cache_control": None}]}
    first, second = (hashed(HistoryHasher(Counting()), [{"role": "user", **content}, marked]).chain for content in (one, other))
    assert (first == second) is same


def test_the_leading_system_message_is_no_part_of_the_chain() -> None:
    hasher = HistoryHasher(Counting())
    with_system = hashed(hasher, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    without = hashed(hasher, [{"role": "user", "content": "Hi"}])
    assert with_system.chain == without.chain
    assert len(with_system.entries) == 2
    assert hashed(hasher, [{"role": "system", "content": "Be brief."}]).chain


def test_entries_of_other_forms_are_told_apart() -> None:
    def chain(prompt: Any) -> list[bytes]:
        raw = json.dumps({"model": "m", "input": prompt}).encode()
        return list(HistoryHasher(Counting()).of(glance(raw), raw, b"").chain)

    assert chain([1, 23]) != chain([12, 3])
    assert chain("a") != chain(["a", "b"])
    assert chain([]) == []


def test_a_request_costs_by_its_new_messages() -> None:
    """150 kB in 300 messages with one turn more costs a fraction of what all of it costs."""
    messages = conversation(320, 470)
    bodies = [json.dumps({"model": "m", "messages": messages[:count]}).encode() for count in range(300, 320, 2)]
    looked = [(glance(raw), raw) for raw in bodies]
    digest = Counting()

    def spent(hasher: HistoryHasher, at: int) -> float:
        began = time.perf_counter()
        hasher.of(*looked[at], b"")
        return time.perf_counter() - began

    whole = min(spent(HistoryHasher(digest), at) for at in range(10))
    hasher = HistoryHasher(digest)
    spent(hasher, 0)
    continued = min(spent(hasher, at) for at in range(1, 10))
    assert continued < whole / 2
