"""Interceptors at work on what is put into their inbox."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proxy_core.interceptors.base import Begun, Config, Finished, Interceptor
from proxy_core.interceptors.dispatch import Interceptors, Watcher
from proxy_core.interceptors.events import Event, EventMaker
from proxy_core.interceptors.inbox import Inbox
from proxy_core.interceptors.records import Began, Ended, end_of
from proxy_core.interceptors.surroundings import Surroundings
from tests.proxy_core.interceptors.traffic import outcome_for, running_for
from tests.proxy_core.interceptors.waits import until

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = {
    "id": "c",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
}

needs_spare_time = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system knows no such priority")


def may_raise_priorities() -> bool:
    """Whether a thread that works in spare time can be told to go on at once; tried with one."""

    def lower_and_raise() -> None:
        with suppress(AttributeError, OSError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            found.append(True)

    found: list[bool] = []
    thread = threading.Thread(target=lower_and_raise)
    thread.start()
    thread.join()
    return bool(found)


class Notes(Interceptor[Config]):
    """Keeps what it hears."""

    def __init__(self, **hooks: Any) -> None:
        super().__init__(Config(), Surroundings(data_dir=Path("/nowhere")))
        self.heard: list[Any] = []
        self.threads: set[int] = set()
        self.on_start = hooks.get("start", lambda: None)
        self.on_begun = hooks.get("begun", lambda: None)
        self.closed = False

    def start(self) -> None:
        self.on_start()

    def begun(self, begun: Begun) -> None:
        self.threads.add(threading.get_ident())
        self.on_begun()
        self.heard.append(begun.transaction_id)

    def finished(self, finished: Finished) -> None:
        self.heard.append((finished.begun.transaction_id, finished.outcome))

    def close(self) -> None:
        self.closed = True


class EventsOnly(Notes):
    def events(self, events: Any) -> None:
        self.heard += [event.name for event in events if isinstance(event, Event)]


def dispatched(*interceptors: Interceptor[Any], inbox: Inbox[Any] | None = None) -> Interceptors:
    watchers = [Watcher(f"kind_{at}", one) for at, one in enumerate(interceptors)]
    return Interceptors(watchers, EventMaker(), inbox=inbox)


def pass_by(interceptors: Interceptors, number: int) -> None:
    """One transaction, as it comes from the gateway."""
    running, intent, hashes = running_for("chat", BODY, number=number)
    began = Began(intent, running.glance, hashes)
    interceptors.put(began, len(intent.body))
    outcome = outcome_for(running, intent, ANSWER)
    interceptors.put(Ended(began, end_of(outcome, running)), len(outcome.body))


def test_records_come_in_order_from_threads_of_their_own() -> None:
    notes, events = Notes(), EventsOnly()
    interceptors = dispatched(notes, events)
    interceptors.start()
    for number in range(50):
        pass_by(interceptors, number)
    interceptors.close(5.0)
    assert notes.heard == [one for n in range(50) for one in (f"T{n:025d}", (f"T{n:025d}", "ok"))]
    assert [one for one in events.heard if one == "llm.call.finish"] == ["llm.call.finish"] * 50
    assert events.heard[-1] == "session.end"
    assert notes.threads.isdisjoint({threading.get_ident()})
    assert notes.closed
    assert interceptors.counts()[0].taken == 100
    assert [one.dropped for one in interceptors.counts()] == [0, 0]


def test_events_come_with_their_record_to_one_that_hears_both() -> None:
    both, records = EventsOnly(), Notes()
    interceptors = dispatched(both, records)
    for number in range(2):
        pass_by(interceptors, number)
    interceptors.start()
    interceptors.close(5.0)
    first, second = "T0000000000000000000000000", "T0000000000000000000000001"
    assert both.heard == [
        *(first, "session.start", "llm.call.start", (first, "ok"), "llm.call.finish"),
        *(second, "llm.call.start", (second, "ok"), "llm.call.finish", "session.end"),
    ]
    assert records.heard == [first, (first, "ok"), second, (second, "ok")]
    assert [one.taken for one in interceptors.counts()] == [9, 4]


@needs_spare_time
def test_they_work_in_spare_time_unless_it_does_not_do() -> None:
    turn = threading.Lock()
    priorities: list[int] = []

    def note() -> None:
        assert turn.acquire(blocking=False), "two threads at a time"
        priorities.append(os.sched_getscheduler(0))
        turn.release()

    notes = Notes(begun=note)
    interceptors = dispatched(notes, inbox=Inbox(max_waiting=100))
    for number in range(30):
        pass_by(interceptors, number)
    interceptors.start()
    until(lambda: interceptors.done == 60)
    assert set(priorities) == {os.SCHED_OTHER}, "more than half of the room was taken"
    priorities.clear()
    until(lambda: any(one.name == "interceptors-spare" for one in threading.enumerate()))
    pass_by(interceptors, 30)
    until(lambda: interceptors.done == 62)
    assert priorities == [os.SCHED_IDLE]
    interceptors.close(5.0)
    assert notes.heard == [one for n in range(31) for one in (f"T{n:025d}", (f"T{n:025d}", "ok"))]
    assert notes.closed
    assert [one.failed for one in interceptors.counts()] == [0]


@needs_spare_time
def test_what_is_started_first_does_not_work_in_spare_time() -> None:
    priorities: list[int] = []

    def start() -> None:
        thread = threading.Thread(target=lambda: priorities.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()

    interceptors = dispatched(Notes(start=start))
    interceptors.start()
    interceptors.close(5.0)
    assert priorities == [os.SCHED_OTHER]


@needs_spare_time
@pytest.mark.skipif(not may_raise_priorities(), reason="needs the right to raise a priority")
def test_what_is_being_told_is_hastened_at_the_end() -> None:
    priorities: list[int] = []

    def note() -> None:
        priorities.append(os.sched_getscheduler(0))
        until(lambda: os.sched_getscheduler(0) == os.SCHED_OTHER)
        priorities.append(os.sched_getscheduler(0))

    notes = Notes(begun=note)
    interceptors = dispatched(notes)
    interceptors.start()
    pass_by(interceptors, 1)
    until(lambda: priorities == [os.SCHED_IDLE])
    interceptors.close(5.0)
    assert priorities == [os.SCHED_IDLE, os.SCHED_OTHER]
    assert len(notes.heard) == 2


@needs_spare_time
def test_a_thread_that_is_not_let_through_is_replaced() -> None:
    now = [0.0]
    priorities: list[int] = []
    notes = Notes(begun=lambda: priorities.append(os.sched_getscheduler(0)))
    interceptors = Interceptors([Watcher("notes", notes)], EventMaker(), clock=lambda: now[0])
    pass_by(interceptors, 1)
    now[0] = 10.0
    pass_by(interceptors, 2)
    interceptors.start()
    until(lambda: interceptors.done == 4)
    assert priorities == [os.SCHED_OTHER] * 2
    interceptors.close(5.0)


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    asked, goes_on = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        goes_on.wait(10)

    slow = Notes(begun=wait)
    interceptors = dispatched(slow, inbox=Inbox(max_waiting=10))
    interceptors.start()
    pass_by(interceptors, 0)
    assert asked.wait(10)
    for number in range(1, 100):
        pass_by(interceptors, number)
    goes_on.set()
    interceptors.close(5.0)
    assert interceptors.counts()[0].dropped == 200 - len(slow.heard)
    assert 11 <= len(slow.heard) <= 12  # what is in hand, and what fits


def test_bodies_that_wait_are_bounded_too() -> None:
    notes = Notes()
    interceptors = dispatched(notes, inbox=Inbox(max_bytes=1_000))
    for number in range(100):
        pass_by(interceptors, number)
    interceptors.start()
    interceptors.close(5.0)
    assert 0 < len(notes.heard) < 20
    assert interceptors.counts()[0].dropped == 200 - len(notes.heard)


@pytest.mark.parametrize("fault", [ValueError("broken"), SystemExit(3), RecursionError()])
def test_one_that_raises_is_counted_and_logged_once_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture, fault: BaseException
) -> None:
    def fail() -> None:
        raise fault

    broken, sound = Notes(begun=fail), Notes()
    interceptors = dispatched(broken, sound)
    interceptors.start()
    for number in range(20):
        pass_by(interceptors, number)
    interceptors.close(5.0)
    assert len(sound.heard) == 40
    assert len(broken.heard) == 20, "it still hears of what it does not fail on"
    assert [one.failed for one in interceptors.counts()] == [20, 0]
    assert sum("kind_0 failed" in record.getMessage() for record in caplog.records) == 1


def test_one_that_never_returns_does_not_keep_luthien_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    forever = threading.Event()
    first, hanging, events = Notes(), Notes(begun=lambda: forever.wait(30)), EventsOnly()
    interceptors = dispatched(first, hanging, events)
    interceptors.start()
    for number in range(5):
        pass_by(interceptors, number)
    began = time.monotonic()
    interceptors.close(0.2)
    assert time.monotonic() - began < 2.0
    assert any("did not end within" in record.getMessage() for record in caplog.records)
    counts = interceptors.counts()
    assert counts[1].taken == 1
    assert [one.taken + one.dropped for one in counts] == [10, 10, 10], "each record is told or counted"
    assert len(first.heard) == counts[0].taken
    forever.set()
