"""Rolling rates: what counts, and what falls out of the window."""

from __future__ import annotations

from typing import Any

import pytest

from proxy_core.control.rates import RollingRates
from proxy_core.control.rows import TransactionRow


def done(**values: Any) -> TransactionRow:
    base: dict[str, Any] = {"transaction_id": "t", "started_at": 0.0, "state": "done", "outcome": "ok"}
    return TransactionRow(**{**base, **values})


def test_knows_nothing_at_first() -> None:
    rates = RollingRates().snapshot(5.0)
    assert rates.rps == 0
    assert (rates.p50_ms, rates.p99_ms, rates.ttft_ms, rates.usd_per_hour, rates.error_share) == (None,) * 5
    assert rates.sparkline == (0,) * 60


def test_requests_a_second_over_the_time_that_was_seen() -> None:
    rolling = RollingRates()
    for number in range(40):
        rolling.started(100.0 + number / 4)
    assert rolling.snapshot(110.0).rps == pytest.approx(4.0)


def test_percentiles_within_five_percent() -> None:
    rolling = RollingRates()
    for milliseconds in range(1, 1_001):
        rolling.finished(done(total_ms=float(milliseconds), ttft_ms=milliseconds / 10), 50.0)
    rates = rolling.snapshot(51.0)
    assert rates.p50_ms == pytest.approx(500, rel=0.05)
    assert rates.p99_ms == pytest.approx(990, rel=0.05)
    assert rates.ttft_ms == pytest.approx(50, rel=0.05)


def test_extreme_latencies_do_not_break_it() -> None:
    rolling = RollingRates()
    for milliseconds in (0.0, 1e12, float("inf")):
        rolling.finished(done(total_ms=milliseconds), 1.0)
    assert rolling.snapshot(2.0).p99_ms is not None


def test_tokens_money_and_failures() -> None:
    rolling = RollingRates()
    rolling.started(10.0)
    rolling.finished(done(output_tokens=600, cost_usd=0.5), 10.0)
    rolling.finished(done(outcome="error"), 11.0)
    rolling.finished(done(outcome="truncated"), 12.0)
    rolling.finished(done(outcome="cancelled"), 13.0)
    rates = rolling.snapshot(20.0)
    assert rates.tokens_per_s == pytest.approx(60)
    assert rates.usd_per_hour == pytest.approx(0.5 / 10 * 3600)
    assert rates.error_share == 0.5


def test_an_unknown_price_is_unknown_not_free() -> None:
    rolling = RollingRates()
    rolling.finished(done(cost_usd=None), 1.0)
    assert rolling.snapshot(2.0).usd_per_hour is None


def test_what_is_older_than_the_window_is_forgotten() -> None:
    rolling = RollingRates(window_s=10)
    rolling.started(0.0)
    rolling.finished(done(total_ms=9_000.0), 0.0)
    rolling.started(20.0)
    rolling.finished(done(total_ms=10.0), 20.0)
    rates = rolling.snapshot(21.0)
    assert rates.rps == pytest.approx(0.1)
    assert rates.p99_ms == pytest.approx(10, rel=0.05)


def test_sparkline_has_a_value_for_each_second() -> None:
    rolling = RollingRates(window_s=5)
    for second, count in ((100, 1), (102, 3), (104, 2)):
        for _ in range(count):
            rolling.started(float(second))
    assert rolling.snapshot(105.0).sparkline == (1, 0, 3, 0, 2)


def test_late_reports_count_in_their_own_second() -> None:
    rolling = RollingRates(window_s=5)
    for second in (104, 100, 102, 102, 100, 104, 101):
        rolling.started(float(second))
    assert rolling.snapshot(105.0).sparkline == (2, 1, 2, 0, 2)
    assert rolling.snapshot(105.0).rps == pytest.approx(7 / 5)
    assert rolling.snapshot(108.0).sparkline == (0, 2, 0, 0, 0)
