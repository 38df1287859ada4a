"""Token buckets, with a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.limits.buckets import MINUTE_S, Bucket

STEPS = st.lists(
    st.tuples(st.floats(0, 120, allow_nan=False), st.floats(0.01, 300, allow_nan=False), st.floats(0, 2, allow_nan=False)),
    max_size=60,
)


@given(capacity=st.integers(1, 200), steps=STEPS)
def test_no_span_of_time_gives_more_than_its_units_and_one_bucket(capacity: int, steps: list[tuple[float, float, float]]) -> None:
    now, given_at = 0.0, list[tuple[float, float]]()
    bucket = Bucket.full(capacity, now)
    for pause, amount, _ in steps:
        now += pause
        bucket.look(now)
        if bucket.wait_s(amount) == 0:
            bucket.take(amount)
            given_at.append((now, min(amount, capacity)))
        assert -1e-6 * capacity <= bucket.level <= capacity
    for start in range(len(given_at)):
        for end in range(start, len(given_at)):
            span_s = given_at[end][0] - given_at[start][0]
            assert (
                sum(amount for _, amount in given_at[start : end + 1]) <= capacity * (1 + span_s / MINUTE_S) * (1 + 1e-6) + 1e-6
            )


@given(capacity=st.integers(1, 200), steps=STEPS)
def test_after_the_time_that_it_names_it_gives(capacity: int, steps: list[tuple[float, float, float]]) -> None:
    now = 0.0
    bucket = Bucket.full(capacity, now)
    for pause, amount, overdraft in steps:
        now += pause
        bucket.look(now)
        wait_s = bucket.wait_s(amount)
        now += wait_s
        bucket.look(now)
        assert bucket.wait_s(amount) <= 1e-6 * MINUTE_S
        bucket.take(amount)
        bucket.settle(amount, amount * overdraft)
        assert bucket.level <= capacity


def test_what_is_settled_was_all_that_it_cost() -> None:
    bucket = Bucket.full(100, 0)
    bucket.take(80)
    assert bucket.level == 20
    bucket.settle(80, 30)
    assert bucket.level == 70
    bucket.take(70)
    bucket.settle(70, 170)
    assert bucket.level == -100
    assert bucket.wait_s(1) == pytest.approx(60.6)


def test_more_than_it_can_hold_needs_a_full_bucket() -> None:
    bucket = Bucket.full(100, 0)
    assert bucket.wait_s(5_000) == 0
    bucket.take(5_000)
    bucket.settle(5_000, 40)
    assert bucket.level == 60
    assert bucket.wait_s(5_000) == pytest.approx(24)


def test_a_clock_that_goes_back_changes_nothing() -> None:
    bucket = Bucket.full(60, 100)
    bucket.take(30)
    assert bucket.look(50) == 30
    assert bucket.look(110) == 40


def test_another_limit_holds_at_once_and_what_was_used_stays_used() -> None:
    bucket = Bucket.full(60, 0)
    bucket.take(60)
    assert bucket.look(0, per_minute=90) == 30
    assert bucket.look(0, per_minute=10) == 10
    bucket.take(10)
    assert bucket.look(6, per_minute=10) == 1


@pytest.mark.parametrize(("per_minute", "at_once", "given"), [(60, 3, 3), (10, 20, 20), (60, None, 60), (60, 1, 1)])
def test_so_many_at_once_and_then_by_the_minute(per_minute: int, at_once: int | None, given: int) -> None:
    bucket = Bucket.full(per_minute, 0, at_once)
    for _ in range(given):
        assert bucket.wait_s(1) == 0
        bucket.take(1)
    assert bucket.wait_s(1) == pytest.approx(60 / per_minute)
    bucket.look(60 / per_minute)
    assert bucket.wait_s(1) == 0
    bucket.look(1e6)
    assert bucket.level == (at_once or per_minute)


def test_another_number_at_once_holds_from_now_on() -> None:
    bucket = Bucket.full(60, 0)
    bucket.take(50)
    bucket.look(0, 60, 5)
    assert (bucket.level, bucket.capacity) == (5, 5)
    bucket.look(0, 60)
    assert (bucket.level, bucket.capacity) == (60, 60)
