"""Sessions as clients really send them: by header, by mark, by answer, by history."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy_core.sessions.detector import Belonging, KnownPoint
from proxy_core.wire.glance import glance
from tests.proxy_core.sessions.talk import Talk

UUID = "01a1fb85-95d6-7702-b258-b45a0a76aa92"


@pytest.mark.parametrize(
    "header",
    ["x-luthien-session-id", "x-cylestio-conversation-id", "x-session-id", "session-id", "x-claude-code-session-id"],
)
def test_a_header_names_the_session(header: str) -> None:
    assert Talk().ask("hello", headers={header: "mine"}).session_id == "mine"


@pytest.mark.parametrize(
    ("fields", "session_id"),
    [
        ({"conversation": "conv_1"}, "conv_1"),
        ({"conversation": {"id": "conv_2"}}, "conv_2"),
        ({"client_metadata": {"session_id": UUID}}, UUID),
        ({"metadata": {"user_id": f"user_abc_account_{UUID}_session_{UUID}"}}, UUID),
        ({"metadata": {"user_id": json.dumps({"device_id": "d", "session_id": UUID})}}, UUID),
        ({"prompt_cache_key": UUID}, UUID),
        ({"prompt_cache_key": "everybody"}, "s-1"),
        ({"metadata": {"user_id": "somebody"}}, "s-1"),
        ({"metadata": 7, "conversation": [], "client_metadata": "x"}, "s-1"),
    ],
)
def test_a_mark_in_the_body_names_the_session(fields: dict[str, Any], session_id: str) -> None:
    assert Talk().ask("hello", **fields).session_id == session_id


def test_a_longer_history_continues_its_session() -> None:
    talk = Talk()
    first = talk.ask("hello")
    second = talk.ask("hello", "hi", "how are you")
    third = talk.ask("hello", "hi", "how are you", "fine", "good")
    assert first.session_id == second.session_id == third.session_id == "s-1"
    assert talk.ask("hello", "hi", "how are you", "another answer", "good").session_id == "s-1"


def test_twins_with_the_same_opening_are_two_sessions() -> None:
    talk = Talk()
    assert talk.ask("hello").session_id != talk.ask("hello").session_id


def test_a_retry_of_the_opening_is_no_twin() -> None:
    talk = Talk()
    first = talk.ask("hello")
    assert talk.ask("hello", headers={"x-stainless-retry-count": "1"}).session_id == first.session_id


def test_an_expired_session_is_the_predecessor_of_its_continuation() -> None:
    talk = Talk()
    talk.ask("hello")
    talk.now = 3_601
    later = talk.ask("hello", "hi", "still there?")
    assert (later.session_id, later.predecessor) == ("s-2", "s-1")


def test_moving_cache_marks_do_not_break_the_chain() -> None:
    talk = Talk()

    def anthropic(*texts: str) -> Belonging:
        messages: list[dict[str, Any]] = []
        for place, text in enumerate(texts):
            part: dict[str, Any] = {"type": "text", "text": text}
            if place == len(texts) - 1:
                part["cache_control"] = {"type": "ephemeral"}
            messages.append({"role": "user" if place % 2 == 0 else "assistant", "content": [part]})
        body = json.dumps({"model": "m", "messages": messages}).encode()
        return talk.detector.belonging({}, glance(body), body)

    assert anthropic("a").session_id == anthropic("a", "b", "c").session_id == anthropic("a", "b", "c", "d", "e").session_id


def test_an_answer_that_is_continued_by_its_id() -> None:
    talk = Talk()
    body = b'{"model":"m","input":"hello"}'
    first = talk.detector.belonging({}, glance(body), body)
    talk.detector.answered(first.session_id, "resp_1")
    body = b'{"model":"m","input":"and then?","previous_response_id":"resp_1"}'
    assert talk.detector.belonging({}, glance(body), body).session_id == first.session_id


def test_what_the_journal_gives_back_is_known() -> None:
    talk = Talk()
    first = talk.ask("hello")
    after_restart = Talk()
    after_restart.detector.recall([KnownPoint(first.session_id, first.chain, "resp_9", 10.0)])
    assert after_restart.ask("hello", "hi", "more").session_id == first.session_id


def test_what_was_given_back_counts_as_known() -> None:
    talk = Talk()
    talk.detector.recall([KnownPoint("before", b"", "resp_9", 10.0)])
    assert talk.detector.statistics["created"] == 0
    talk.ask("hello", headers={"x-session-id": "before"})
    talk.ask("hello", headers={"x-session-id": "now"})
    found = talk.detector.statistics
    assert (found["hits"], found["misses"], found["created"], found["active"]) == (1, 1, 1, 2)


def test_the_oldest_are_forgotten_first() -> None:
    talk = Talk(max_sessions=10)
    first = talk.ask("the first")
    for number in range(100):
        talk.ask(f"opening {number}")
    assert talk.ask("the first", "hi", "more").session_id != first.session_id


def test_agents_are_told_by_header_else_by_system_prompt() -> None:
    talk = Talk()
    assert talk.ask("x", headers={"x-luthien-agent-id": "ops"}).agent == "ops"
    assert talk.ask("x").agent == talk.ask("y").agent
    assert talk.ask("x").agent.startswith("agent-")


def test_hostile_names_are_cut_and_printable() -> None:
    named = Talk().ask("x", headers={"x-session-id": "a\x1b]52;c;\x07" + "b" * 5_000}).session_id
    assert len(named) == 200
    assert named.isprintable()
