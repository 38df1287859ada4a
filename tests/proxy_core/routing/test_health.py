"""The breaker of an upstream, with a clock and dice of the test's own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy_core.routing.health import BreakerRules, Health, SlidingCount

RULES = BreakerRules(failures=3, rate=0.5, min_requests=10, window_s=30, pause_s=5, max_pause_s=20)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def health_with(clock: Clock, *, chance: float = 0.0) -> Health:
    return Health("one", RULES, clock=clock, chance=lambda: chance)


def send(health: Health, clock: Clock, *, good: bool) -> None:
    trying = health.begin()
    if good:
        health.answered(clock(), 10.0)
    else:
        health.failed("status 503")
    health.end(trying=trying)


def opened(clock: Clock) -> Health:
    health = health_with(clock)
    for _ in range(3):
        send(health, clock, good=False)
    return health


def test_failures_in_a_row_open_it_and_one_good_answer_closes_it() -> None:
    clock = Clock()
    health = opened(clock)
    assert (health.breaker, health.ready) == ("open", False)
    clock.now += 4.9
    assert not health.ready
    clock.now += 0.2
    assert (health.breaker, health.ready) == ("half_open", True)
    send(health, clock, good=True)
    assert (health.breaker, health.ready) == ("closed", True)


def test_half_open_lets_one_request_try() -> None:
    clock = Clock()
    health = opened(clock)
    clock.now += 6
    trying = health.begin()
    assert trying
    assert not health.ready
    assert not health.begin(), "a second one goes there as a last resort only, and decides nothing"
    health.end(trying=False)
    health.end(trying=True)
    assert health.ready, "one that was cancelled tells nothing: the next one tries"


def test_each_failed_try_doubles_the_pause_up_to_a_limit() -> None:
    clock = Clock()
    health = opened(clock)
    pauses = []
    for _ in range(5):
        pauses.append(health.view().ready_in_s)
        clock.now += pauses[-1]
        send(health, clock, good=False)
    assert pauses == [5, 10, 20, 20, 20]


def test_a_share_of_failures_opens_it_too() -> None:
    clock = Clock()
    health = health_with(clock)
    for number in range(9):
        send(health, clock, good=number % 2 == 1)
    assert health.breaker == "closed", "nine requests are too few to tell"
    send(health, clock, good=False)
    assert not health.ready


def test_old_failures_are_forgotten() -> None:
    clock = Clock()
    health = health_with(clock)
    for number in range(9):
        send(health, clock, good=number % 2 == 1)
    clock.now += 31
    send(health, clock, good=False)
    assert health.breaker == "closed"
    assert health.view().error_rate == 1.0


def test_a_rest_is_kept_but_no_failure() -> None:
    clock = Clock()
    health = health_with(clock)
    health.rest(60)
    assert not health.ready
    assert (health.breaker, health.view().error_rate) == ("closed", 0.0)
    clock.now += 61
    assert health.ready


def test_an_operator_who_takes_it_back_starts_anew() -> None:
    clock = Clock()
    health = opened(clock)
    health.set_state("drained")
    health.set_state("active")
    assert health.ready


def test_what_is_seen_of_it() -> None:
    clock = Clock()
    health = health_with(clock)
    assert health.view().p50_ms is None
    for ms in range(1, 101):
        health.begin()
        health.answered(clock(), float(ms))
    clock.now += 10
    view = health.view()
    assert (view.p50_ms, view.p95_ms, view.p99_ms) == (51.0, 96.0, 100.0)
    assert view.requests_per_s == 10.0
    assert view.in_flight == 100


steps = st.lists(st.tuples(st.sampled_from(["good", "bad", "wait", "rest"]), st.floats(0.01, 8)), max_size=80)


@given(steps, st.floats(0, 1))
def test_it_is_never_shut_for_longer_than_the_longest_pause(taken: list[tuple[str, float]], chance: float) -> None:
    clock = Clock()
    health = health_with(clock, chance=chance)
    for step, seconds in taken:
        clock.now += seconds
        if step == "rest":
            health.rest(seconds)
        elif step != "wait" and health.ready:
            send(health, clock, good=step == "good")
            assert step == "bad" or health.breaker == "closed"
        view = health.view()
        assert view.ready_in_s <= RULES.max_pause_s * 1.5
        assert 0 <= view.error_rate <= 1
        assert view.in_flight == 0
        assert health.ready == (view.ready_in_s == 0)


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=100))
def test_the_window_counts_at_least_nine_tenths_of_its_time_and_nothing_older(events: list[tuple[float, bool]]) -> None:
    count, now = SlidingCount(10.0), 0.0
    kept: list[tuple[float, bool]] = []
    for pause, marked in events:
        now += pause
        count.see(now)
        if marked:
            count.mark(now)
        kept.append((now, marked))
        seen, marks = count.totals(now)
        assert sum(at > now - 8.9 for at, _ in kept) <= seen <= sum(at > now - 10.1 for at, _ in kept)
        assert marks <= seen
