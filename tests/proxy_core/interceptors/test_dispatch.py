"""The queue between the gateway's loop and the interceptors."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from proxy_core.interceptors.base import Begun, Config, Finished, Interceptor
from proxy_core.interceptors.dispatch import Interceptors, Watcher
from proxy_core.interceptors.events import Event, EventMaker
from proxy_core.interceptors.surroundings import Surroundings
from tests.proxy_core.interceptors.traffic import outcome_for, running_for

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = {
    "id": "c",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
}


class Notes(Interceptor[Config]):
    """Keeps what it hears."""

    def __init__(self, **hooks: Any) -> None:
        super().__init__(Config(), Surroundings(data_dir=Path("/nowhere")))
        self.heard: list[Any] = []
        self.threads: set[int] = set()
        self.on_begun = hooks.get("begun", lambda: None)
        self.closed = False

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


def dispatched(*interceptors: Interceptor[Any], **limits: Any) -> Interceptors:
    watchers = [Watcher(f"kind_{at}", one) for at, one in enumerate(interceptors)]
    return Interceptors(watchers, EventMaker(), **limits)


def pass_by(interceptors: Interceptors, number: int) -> None:
    """One transaction, as the gateway tells of it."""
    running, intent, hashes = running_for("chat", BODY, number=number)
    interceptors.begun(running, intent, hashes)
    outcome = outcome_for(running, intent, ANSWER)
    interceptors.finished(running, outcome)
    interceptors.finished(running, outcome)  # the second time is not counted


async def test_records_come_in_order_from_one_thread_of_their_own() -> None:
    notes, events = Notes(), EventsOnly()
    interceptors = dispatched(notes, events)
    interceptors.start()
    for number in range(50):
        pass_by(interceptors, number)
    await interceptors.close()
    assert notes.heard == [one for n in range(50) for one in (f"T{n:025d}", (f"T{n:025d}", "ok"))]
    assert [one for one in events.heard if one == "llm.call.finish"] == ["llm.call.finish"] * 50
    assert events.heard[-1] == "session.end"
    assert notes.threads.isdisjoint({threading.get_ident()})
    assert len(notes.threads) == 1
    assert notes.closed
    assert interceptors.events_taken()["kind_0"] == 100
    assert interceptors.dropped() == {"kind_0": 0, "kind_1": 0}


async def test_what_does_not_fit_is_dropped_and_counted() -> None:
    blocked = threading.Event()
    slow = Notes(begun=lambda: blocked.wait(10))
    interceptors = dispatched(slow, max_waiting=10)
    interceptors.start()
    for number in range(100):
        pass_by(interceptors, number)
    blocked.set()
    await interceptors.close()
    assert interceptors.dropped()["kind_0"] == 200 - len(slow.heard)
    assert 10 <= len(slow.heard) <= 12


async def test_bodies_that_wait_are_bounded_too() -> None:
    notes = Notes()
    interceptors = dispatched(notes, max_waiting_bytes=1_000)
    for number in range(100):
        pass_by(interceptors, number)
    interceptors.start()
    await interceptors.close()
    assert 0 < len(notes.heard) < 20
    assert interceptors.dropped()["kind_0"] == 200 - len(notes.heard)


@pytest.mark.parametrize("fault", [ValueError("broken"), SystemExit(3), RecursionError()])
async def test_one_that_raises_is_counted_and_logged_once_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture, fault: BaseException
) -> None:
    def fail() -> None:
        raise fault

    broken, sound = Notes(begun=fail), Notes()
    interceptors = dispatched(broken, sound)
    interceptors.start()
    for number in range(20):
        pass_by(interceptors, number)
    await interceptors.close()
    assert len(sound.heard) == 40
    assert len(broken.heard) == 20, "it still hears of what it does not fail on"
    assert interceptors.errors() == {"kind_0": 20, "kind_1": 0}
    assert sum("kind_0 failed" in record.getMessage() for record in caplog.records) == 1


async def test_one_that_never_returns_does_not_keep_luthien_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    forever = threading.Event()
    interceptors = dispatched(Notes(begun=lambda: forever.wait(30)))
    interceptors.start()
    for number in range(5):
        pass_by(interceptors, number)
    began = time.monotonic()
    await interceptors.close(timeout_s=0.2)
    assert time.monotonic() - began < 2.0
    assert any("did not end within" in record.getMessage() for record in caplog.records)
    assert interceptors.dropped()["kind_0"] >= 4
    forever.set()


def test_the_loop_pays_microseconds_for_it() -> None:
    interceptors = dispatched(Notes(), Notes(), EventsOnly())
    made = [running_for("chat", BODY, number=number) for number in range(2_000)]
    outcomes = [outcome_for(running, intent, ANSWER) for running, intent, _ in made]
    best = 1.0
    for _ in range(3):
        began = time.perf_counter()
        for (running, intent, hashes), outcome in zip(made, outcomes, strict=True):
            interceptors.begun(running, intent, hashes)
            interceptors.finished(running, outcome)
        best = min(best, (time.perf_counter() - began) / len(made))
    assert best < 10e-6


async def test_one_that_asks_for_another_go_gets_it() -> None:
    class Patient(Notes):
        goes = 3

        def flush(self, now: float) -> bool:
            self.goes -= 1
            return self.goes > 0

    patient = Patient()
    interceptors = dispatched(patient)
    interceptors.start()
    await interceptors.close()
    assert patient.goes <= 0
