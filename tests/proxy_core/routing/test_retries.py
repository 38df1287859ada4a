"""When a request is sent once more, and how long to wait before it."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.routing.retries import RetryBudget, full_jitter, may_send_again, retry_after_s
from proxy_core.wire.dialects import Operation

UNIX = 1_700_000_000.0


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 20), st.integers(0, 20)), max_size=60), st.floats(0, 1))
def test_attempts_stay_within_the_budget(bursts: list[tuple[float, int, int]], share: float) -> None:
    """Each entry: a pause, so many requests, and so many wishes to try again."""
    now = 0.0
    budget = RetryBudget(share, window_s=10.0, clock=lambda: now)
    requests: list[float] = []
    retries: list[float] = []
    for pause, count, wishes in bursts:
        now += pause
        for _ in range(count):
            budget.request()
            requests.append(now)
        for _ in range(wishes):
            if budget.take():
                retries.append(now)
                recent = sum(at > now - 8.9 for at in retries)
                assert recent <= share * sum(at > now - 10.1 for at in requests) + 3


def test_a_few_are_always_free() -> None:
    budget = RetryBudget(0.2, window_s=10.0, clock=lambda: 5.0)
    assert [budget.take() for _ in range(5)] == [True, True, True, False, False]


def test_a_hundred_requests_buy_twenty_more_attempts() -> None:
    budget = RetryBudget(0.2, window_s=10.0, clock=lambda: 5.0)
    for _ in range(100):
        budget.request()
    assert sum(budget.take() for _ in range(100)) == 23


POST = [
    # status, unsent, operation, may it be sent again?
    (None, True, Operation.CHAT, True),
    (None, False, Operation.CHAT, False),
    (429, False, Operation.CHAT, True),
    (503, False, Operation.RESPONSES, True),
    (529, False, Operation.MESSAGES, True),
    (500, False, Operation.MESSAGES, True),
    (502, False, Operation.OLLAMA_CHAT, True),
    (500, False, Operation.RESPONSES, False),
    (500, False, Operation.OTHER, False),
    (504, False, Operation.CHAT, False),
]


@pytest.mark.parametrize(("status", "unsent", "operation", "again"), POST)
def test_a_post_is_sent_again_where_nothing_happens_twice(
    status: int | None, unsent: bool, operation: Operation, again: bool
) -> None:
    assert may_send_again(status, unsent=unsent, method="POST", operation=operation, unsafe=False) is again
    assert may_send_again(status, unsent=unsent, method="POST", operation=operation, unsafe=True)
    assert may_send_again(status, unsent=unsent, method="GET", operation=operation, unsafe=False)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None),
        ([(b"retry-after", b"7")], 7.0),
        ([(b"Retry-After", b" 1.5 ")], 1.5),
        ([(b"retry-after", b"7"), (b"retry-after-ms", b"250")], 0.25),
        ([(b"retry-after", formatdate(UNIX + 30, usegmt=True).encode())], 30.0),
        ([(b"retry-after", formatdate(UNIX - 30, usegmt=True).encode())], 0.0),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"-5")], None),
        ([(b"retry-after", b"nan")], None),
        ([(b"retry-after", b"1e9")], None),
        ([(b"retry-after", "\N{ARABIC-INDIC DIGIT SEVEN}".encode())], None),
        ([(b"retry-after", b"9" * 400)], None),
        ([(b"retry-after-ms", b""), (b"retry-after", b"3")], 3.0),
        ([(b"retry-after", b"Mon, 99 Foo 99999 99:99:99 GMT")], None),
    ],
)
def test_how_long_an_upstream_asks_to_wait(headers: list[tuple[bytes, bytes]], seconds: float | None) -> None:
    assert retry_after_s(headers, unix_time=UNIX) == seconds


@given(st.binary(max_size=60))
def test_any_header_is_read_without_a_fault(value: bytes) -> None:
    seconds = retry_after_s([(b"retry-after", value)], unix_time=UNIX)
    assert seconds is None or seconds >= 0


@given(st.integers(1, 10_000), st.floats(0.001, 10), st.floats(0.001, 60), st.floats(0, 1))
def test_jitter_stays_within_its_bounds(number: int, base_s: float, cap_s: float, chance: float) -> None:
    pause = full_jitter(number, base_s=base_s, cap_s=cap_s, chance=lambda: chance)
    assert 0 <= pause <= min(cap_s, base_s * 2 ** min(number - 1, 30))
