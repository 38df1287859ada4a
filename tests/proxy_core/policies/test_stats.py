"""What is counted of policies: an hour by minutes, today, times and scores."""

from __future__ import annotations

import time
from typing import Any

import pytest

from proxy_core.interceptors.metrics import GatewayMetrics
from proxy_core.policies.stats import PolicyStats
from proxy_core.routing.reasons import Reason
from proxy_core.verdicts import Stage, Verdict

NOON = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stats(clock: Clock) -> PolicyStats:
    return PolicyStats(clock)


def said(policy: str = "judge", **other: Any) -> Verdict:
    return Verdict(**({"policy": policy, "stage": Stage.REQUEST, "mode": "enforce"} | other))


def test_a_transaction_counts_once_for_each_policy(stats: PolicyStats) -> None:
    stats.note(
        [
            said(ms=1.0),
            said(stage=Stage.TOOL_CALL, action="deny", reason=Reason.TOOL_JUDGED_HARMFUL, score=0.9, ms=2.0),
            said(stage=Stage.TOOL_CALL, action="deny", reason=Reason.TOOL_JUDGED_HARMFUL, score=0.7, ms=3.0),
            said("other"),
        ]
    )
    judge, other = stats.figures("judge"), stats.figures("other")
    assert (judge.hits_1h, judge.acted_1h, judge.shadow_1h, judge.errors_1h, judge.acted_today) == (1, 1, 0, 0, 1)
    assert (judge.p50_ms, judge.recent_scores) == (6.0, (0.9, 0.7))
    assert (other.hits_1h, other.acted_1h, other.recent_scores) == (1, 0, ())


def test_shadow_and_errors_are_counted_apart(stats: PolicyStats) -> None:
    stats.note([said(mode="shadow", action="deny", reason=Reason.TOOL_NOT_ALLOWED)])
    stats.note([said(ran="error", action="deny", reason=Reason.POLICY_TIMEOUT), said(ran="error", reason=Reason.POLICY_ERROR)])
    figures = stats.figures("judge")
    assert (figures.hits_1h, figures.acted_1h, figures.shadow_1h, figures.errors_1h) == (2, 1, 1, 1)


@pytest.mark.parametrize("ran", ["skipped", "unsupported"])
def test_what_did_not_run_is_no_hit(stats: PolicyStats, ran: Any) -> None:
    stats.note([said(ran=ran, reason=Reason.NOT_RUN)])
    assert stats.figures("judge").hits_1h == 0
    assert stats.decisions() == {}


def test_parts_count_for_their_policy(stats: PolicyStats) -> None:
    stats.note([said("serial/first", action="modify"), said("serial/second")])
    assert (stats.figures("serial").hits_1h, stats.figures("serial").acted_1h) == (1, 1)
    assert stats.decisions() == {("serial", "modify", "enforce"): 1, ("serial", "allow", "enforce"): 1}


def test_an_hour_slides_by_minutes(stats: PolicyStats, clock: Clock) -> None:
    for minute in range(3):
        clock.now = NOON + 60 * minute
        for _ in range(minute + 1):
            stats.note([said(action="flag")])
    assert stats.figures("judge").per_minute[-3:] == (1, 2, 3)
    clock.now = NOON + 60 * 59
    assert stats.figures("judge").per_minute[:4] == (1, 2, 3, 0)
    clock.now = NOON + 60 * 61
    assert (stats.figures("judge").hits_1h, stats.figures("judge").acted_today) == (3, 6)
    clock.now = NOON + 60 * 500
    assert (stats.figures("judge").hits_1h, len(stats.figures("judge").per_minute)) == (0, 60)


def test_today_ends_at_midnight(stats: PolicyStats, clock: Clock) -> None:
    stats.note([said(action="deny")])
    clock.now = NOON + 13 * 3_600
    assert stats.figures("judge").acted_today == 0
    stats.note([said(action="deny")])
    assert stats.figures("judge").acted_today == 1


def test_a_clock_that_is_set_back_breaks_nothing(stats: PolicyStats, clock: Clock) -> None:
    stats.note([said()])
    clock.now = NOON - 3_600
    stats.note([said()])
    assert stats.figures("judge").hits_1h == 2
    clock.now = NOON + 10 * 365 * 86_400
    stats.note([said()])
    assert stats.figures("judge").hits_1h == 1


def test_times_and_scores_are_bounded(stats: PolicyStats) -> None:
    for number in range(1_500):
        stats.note([said(score=number / 1_500, ms=float(number))])
    figures = stats.figures("judge")
    assert len(figures.recent_scores) == 1_000
    assert (figures.recent_scores[-1], figures.p50_ms, figures.p99_ms) == (1_499 / 1_500, 999.0, 1_489.0)


def test_of_an_unknown_policy_nothing_is_known(stats: PolicyStats) -> None:
    figures = stats.figures("never heard of")
    assert (figures.hits_1h, figures.p50_ms, figures.per_minute) == (0, None, (0,) * 60)


def test_decisions_are_a_metric(stats: PolicyStats) -> None:
    metrics = GatewayMetrics()
    labels = ("policy", "action", "mode")
    metrics.watch_labelled("luthien_policy_decisions", "What policies decided.", labels, stats.decisions)
    for _ in range(3):
        stats.note([said(action="deny"), said("quiet", mode="shadow")])
    text = metrics.exposition().decode()
    assert 'luthien_policy_decisions_total{action="deny",mode="enforce",policy="judge"} 3.0' in text
    assert 'luthien_policy_decisions_total{action="allow",mode="shadow",policy="quiet"} 3.0' in text


def test_noting_is_cheap(stats: PolicyStats) -> None:
    """At most 2 µs a verdict; the bound here leaves room for a busy machine."""
    verdicts = [said(f"policy-{number}", ms=0.1, score=0.5, action="flag") for number in range(10)]
    best = min(seconds_of(stats, verdicts) for _ in range(5))
    assert best / 10 < 10e-6


def seconds_of(stats: PolicyStats, verdicts: list[Verdict]) -> float:
    started = time.thread_time()
    for _ in range(200):
        stats.note(verdicts)
    return (time.thread_time() - started) / 200
