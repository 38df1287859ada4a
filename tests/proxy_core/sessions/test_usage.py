"""What is estimated where an upstream tells no counts, and what stays unknown."""

from __future__ import annotations

import base64
import json
import os
import time

import pytest

from proxy_core.sessions.usage import TOKENS_PER_FILE, UsageEstimates
from proxy_core.settings import PricesSettings
from proxy_core.wire.conversation import Usage
from proxy_core.wire.dialects import Operation
from proxy_core.wire.glance import Glance, glance

ASKED = glance(json.dumps({"messages": [{"role": "user", "content": "x" * 369}]}).encode())
"""400 characters of history."""
UNREADABLE = Glance()


def completed(
    usage: Usage | None,
    *,
    operation: Operation = Operation.CHAT,
    asked: Glance = ASKED,
    said: int = 40,
    complete: bool = True,
    **settings: object,
) -> tuple[Usage | None, bool]:
    estimates = UsageEstimates(PricesSettings.model_validate(settings))
    return estimates.completed(usage, operation=operation, asked=asked, said_chars=said, complete=complete)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, (Usage(100, 10), True)),
        (Usage(7, 3, 2), (Usage(7, 3, 2), False)),
        (Usage(0, 0), (Usage(0, 0), False)),
        (Usage(None, 3), (Usage(100, 3), True)),
        (Usage(7, None, 5), (Usage(7, 10, 5), True)),
    ],
)
def test_what_is_missing_is_estimated(usage: Usage | None, expected: tuple[Usage | None, bool]) -> None:
    assert completed(usage) == expected


def test_the_setting_says_how_and_whether() -> None:
    assert completed(None, chars_per_token=3.5) == (Usage(115, 12), True)
    assert completed(None, estimate_usage=False) == (None, False)


def test_an_answer_that_broke_off_has_used_at_least_what_was_seen() -> None:
    assert completed(Usage(7, 1), complete=False) == (Usage(7, 10), True)
    assert completed(Usage(7, 20), complete=False) == (Usage(7, 20), False)
    assert completed(None, complete=False) == (Usage(100, 10), True)


def test_what_gives_no_hold_stays_unknown() -> None:
    assert completed(None, said=0) == (None, False)
    assert completed(None, asked=UNREADABLE) == (None, False)
    assert completed(None, operation=Operation.COUNT_TOKENS) == (None, False)
    assert completed(None, operation=Operation.OTHER) == (None, False)


def test_embeddings_have_input_alone() -> None:
    asked = glance(json.dumps({"input": ["y" * 98, "z" * 98]}).encode())
    assert completed(None, operation=Operation.EMBEDDINGS, asked=asked, said=0) == (Usage(50), True)


def test_a_file_counts_as_one_thing() -> None:
    picture = base64.b64encode(os.urandom(30_000)).decode()
    asked = glance(json.dumps({"messages": [{"role": "user", "content": [{"data": picture}, "x" * 100]}]}).encode())
    usage, _ = completed(None, asked=asked)
    assert usage is not None
    assert usage.input_tokens is not None
    assert TOKENS_PER_FILE + 25 < usage.input_tokens < TOKENS_PER_FILE + 60


@pytest.mark.parametrize("words", ["a" * 5_999 + " ", "a" * 70 + " ", "x" * 2_999 + " " + "y" * 3_000])
def test_long_words_that_are_no_files_cost_no_time(words: str) -> None:
    text = words * (3_000_000 // len(words))
    asked = glance(json.dumps({"messages": [{"role": "user", "content": f"base64 {text}"}]}).encode())
    started = time.thread_time()
    usage, _ = completed(None, asked=asked)
    assert time.thread_time() - started < 0.5
    assert usage is not None
    assert (usage.input_tokens or 0) * 4 > len(text)
