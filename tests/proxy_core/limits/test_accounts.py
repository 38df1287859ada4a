"""Budgets in one process: what may be reserved, and what is left after settling."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from proxy_core.limits.accounts import Accounts, Line, ends_at, in_usd, periods_at

DAY = "2026-01-31"


def line(limit: int, estimate: int, scope: str = "key:ci") -> Line:
    return Line(scope, DAY, limit, estimate)


@given(
    limit=st.integers(1, 1_000),
    requests=st.lists(st.tuples(st.integers(1, 400), st.floats(0, 1), st.integers(0, 5)), max_size=80),
)
def test_the_limit_is_passed_by_the_last_request_at_most(limit: int, requests: list[tuple[int, float, int]]) -> None:
    """Whatever the order of reserving and settling, as long as no request costs more than its estimate."""
    accounts, running, largest = Accounts(), list[tuple[str, int]](), 0
    for number, (estimate, share, settled) in enumerate(requests):
        if accounts.reserve(str(number), [line(limit, estimate)]) is None:
            running.append((str(number), int(estimate * share)))
            largest = max(largest, estimate)
        for _ in range(min(settled, len(running))):
            name, cost = running.pop(0)
            accounts.settle(name, cost)
        assert accounts.spent("key:ci", DAY) <= limit + largest
    for name, cost in running:
        accounts.settle(name, cost)
    assert accounts.spent("key:ci", DAY) < limit + max(largest, 1)


def test_a_request_reserves_in_all_its_budgets_or_in_none() -> None:
    accounts = Accounts()
    assert accounts.reserve("a", [line(100, 60), line(50, 30, "agent:x")]) is None
    refusal = accounts.reserve("b", [line(100, 30), line(50, 30, "agent:x")])
    assert refusal is not None
    assert (refusal.line.scope, refusal.spent, refusal.reserved) == ("agent:x", 0, 30)
    assert accounts.reserve("c", [line(100, 40)]) is None


def test_one_request_alone_may_use_up_what_is_left() -> None:
    accounts = Accounts()
    assert accounts.reserve("a", [line(100, 5_000)]) is None
    assert accounts.reserve("b", [line(100, 1)]) is not None
    accounts.settle("a", 99)
    assert accounts.reserve("c", [line(100, 5_000)]) is None
    accounts.settle("c", 1)
    assert accounts.reserve("d", [line(100, 1)]) is not None


def test_settling_twice_or_what_is_not_there_changes_nothing() -> None:
    accounts = Accounts()
    accounts.reserve("a", [line(100, 10)])
    assert accounts.settle("a", 7)
    assert not accounts.settle("a", 7)
    assert not accounts.settle("nobody", 7)
    assert accounts.spent("key:ci", DAY) == 7


def test_days_and_months_are_those_of_utc() -> None:
    last_second = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    assert periods_at(last_second) == ("2026-12-31", "2026-12")
    assert ends_at("2026-12-31") == ends_at("2026-12") == datetime(2027, 1, 1, tzinfo=UTC)
    assert periods_at(last_second + 1) == ("2027-01-01", "2027-01")


def test_a_new_day_begins_with_nothing_spent() -> None:
    accounts = Accounts()
    accounts.put("key:ci", DAY, 100)
    accounts.put("key:ci", "2026-01", 100)
    accounts.forget(("2026-02-01", "2026-01"))
    assert accounts.spent("key:ci", DAY) == 0
    assert accounts.spent("key:ci", "2026-01") == 100


def test_what_is_not_written_down_yet_is_not_forgotten() -> None:
    accounts = Accounts()
    accounts.put("key:ci", DAY, 100)
    accounts.forget(("2026-02-01", "2026-02"), unless={("key:ci", DAY)})
    assert accounts.spent("key:ci", DAY) == 100
    accounts.forget(("2026-02-01", "2026-02"))
    assert accounts.spent("key:ci", DAY) == 0


def test_amounts_for_people() -> None:
    assert [in_usd(one) for one in (5.0, 0.000001, 1_250.5, 2_000_000, 0.0)] == [
        "$5",
        "$0.000001",
        "$1,250.5",
        "$2,000,000",
        "$0",
    ]
