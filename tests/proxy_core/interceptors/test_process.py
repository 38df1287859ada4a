"""Records on their way to the interceptors' process."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from proxy_core.interceptors import frames
from proxy_core.interceptors.base import Begun, Finished
from proxy_core.interceptors.process import CLOSED, InterceptorProcess, Worker
from proxy_core.interceptors.records import Began, Ended, begun_of, end_of, finished_of
from proxy_core.interceptors.registry import build_watchers
from proxy_core.interceptors.surroundings import Surroundings
from proxy_core.policy_services import Call
from proxy_core.routing.reasons import Reason
from proxy_core.settings import InterceptorSettings
from proxy_core.transaction import WholeResponse
from proxy_core.verdicts import Stage, Verdict
from tests.proxy_core.interceptors.installed import install
from tests.proxy_core.interceptors.traffic import outcome_for, running_for

BODY = {"model": "m", "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}], "user": "u"}
ANSWER = {
    "id": "c",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
}


def process(folder: Path, *types: str, **limits: int) -> InterceptorProcess:
    keys = {"message_logger": {"directory": str(folder)}, "http_recorder": {"output_dir": str(folder)}}
    wanted = [InterceptorSettings(type=one, config=keys.get(one, {})) for one in types]
    surroundings = Surroundings(data_dir=folder)
    return InterceptorProcess(build_watchers(wanted, surroundings), wanted, surroundings, **limits)


def pass_by(interceptors: InterceptorProcess, number: int, **outcome: Any) -> None:
    """One transaction, as the gateway tells of it."""
    running, intent, hashes = running_for("chat", BODY, number=number)
    interceptors.begun(running, intent, hashes)
    made = outcome_for(running, intent, ANSWER, **outcome)
    interceptors.finished(running, made)
    interceptors.finished(running, made)  # the second time is not counted


def told_over(began: Began, end: Any) -> tuple[Begun, Finished]:
    """Both records, as the other process makes them."""
    pipe = io.BytesIO(b"".join([*frames.pack_began(began.intent, began.glance, began.hashes), *frames.pack_end(end)]))
    first, second = frames.read(pipe), frames.read(pipe)
    assert first and second and frames.read(pipe) is None
    arrived = frames.began_of(first)
    found = frames.ended_of(second, {arrived.intent.transaction_id: arrived})
    return begun_of(arrived), finished_of(found)


@pytest.mark.parametrize("raw", [json.dumps(BODY).encode(), b"", b"no json \xff\x00", b'{"messages": 3}'])
def test_a_record_arrives_as_it_was(raw: bytes) -> None:
    running, intent, hashes = running_for("chat", raw, secrets=(b"sk-hidden",), tags=(("env", "\udc80 odd"),))
    verdict = Verdict(
        policy="p", stage=Stage.TOOL_CALL, mode="shadow", action="deny", reason=Reason.PASSED, detail={"deep": [1, {"é": None}]}
    )
    began = Began(intent, running.glance, hashes)
    outcome = outcome_for(running, intent, ANSWER, verdicts=(verdict,), upstream_body=b"\x00up", upstream_status=503)
    answer = WholeResponse(status=200, headers=[(b"a", b"b")], body=b"{}", upstream="other")
    end = end_of(outcome, running)
    end.calls = [Call("other", "http://127.0.0.1", 0.5, b"/v1/x", b"asked", answer)]
    end.arrivals = [(3, 1.25), (9, 1.5)]
    expected = finished_of(Ended(began, end))
    begun, finished = told_over(began, end)
    assert begun == begun_of(began)
    assert finished == expected
    assert begun.history == running.glance.history


async def test_what_does_not_fit_is_dropped_and_counted(tmp_path: Path) -> None:
    interceptors = process(tmp_path, "message_logger", max_waiting=10)
    for number in range(100):
        pass_by(interceptors, number)
    interceptors.start()
    await interceptors.close()
    assert interceptors.events_taken() == {"message_logger": 10}
    assert interceptors.dropped() == {"message_logger": 190}


async def test_one_that_never_returns_does_not_keep_luthien_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, tmp_path, "sleeper", "def begun(self, begun: Begun) -> None:\n    time.sleep(60)\n")
    interceptors = process(tmp_path, "sleeper")
    interceptors.start()
    for number in range(5):
        pass_by(interceptors, number)
    began = time.monotonic()
    await interceptors.close(timeout_s=2.0)
    assert time.monotonic() - began < 5.0
    assert "did not end in time (status -9)" in caplog.text
    assert interceptors.dropped()["sleeper"] >= 4


async def test_nothing_is_written_to_a_pipe_that_is_being_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be that of a client's connection by then."""
    pipes: list[int] = []
    finish = Worker.finish

    def look(worker: Worker, timeout_s: float) -> bool:
        pipes.append(worker.pipe)
        return finish(worker, timeout_s)

    monkeypatch.setattr(Worker, "finish", look)
    interceptors = process(tmp_path, "http_recorder")
    interceptors.start()
    pass_by(interceptors, 1)
    await interceptors.close()
    assert pipes == [CLOSED]
    assert interceptors.dropped() == {"http_recorder": 0}


async def test_what_cannot_be_told_to_another_process_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    interceptors = process(tmp_path, "http_recorder")
    interceptors.start()
    odd = Verdict(policy="own", stage=Stage.REQUEST, mode="enforce", detail={"made of code": lambda: None})
    pass_by(interceptors, 1, verdicts=(odd,))
    pass_by(interceptors, 2)
    await interceptors.close()
    assert interceptors.dropped() == {"http_recorder": 1}
    assert interceptors.events_taken() == {"http_recorder": 3}
    assert "cannot be told to interceptors" in caplog.text


def test_the_loop_pays_microseconds_for_it(tmp_path: Path) -> None:
    interceptors = process(tmp_path, "printer", "http_recorder", "event_recorder")
    made = [running_for("chat", BODY, number=number) for number in range(2_000)]
    outcomes = [outcome_for(running, intent, ANSWER) for running, intent, _ in made]
    best = 1.0
    with Path(os.devnull).open("wb") as nowhere:
        for _ in range(3):
            began = time.thread_time()
            for (running, intent, hashes), outcome in zip(made, outcomes, strict=True):
                interceptors.begun(running, intent, hashes)
                interceptors.finished(running, outcome)
            while interceptors._outgoing:
                interceptors._outgoing.write(nowhere.fileno())
            best = min(best, (time.thread_time() - began) / len(made))
    assert 0.0 < best < 50e-6
