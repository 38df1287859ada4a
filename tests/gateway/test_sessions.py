"""Sessions as clients see them over HTTP: told by what was answered, beside each other, and across a restart."""

from __future__ import annotations

import json
from typing import Any

from tests.conftest import StartGateway
from tests.fault_upstream import Fault
from tests.gateway_fixtures import RunningGateway

AGENT = {"role": "system", "content": "You are a coding agent."}
HELLO = {"role": "user", "content": "Hello"}


def said(text: str | None, *tasks: str) -> dict[str, Any]:
    """An answer that may hand tasks on."""
    calls = [
        {"id": f"call_{at}", "type": "function", "function": {"name": "task", "arguments": json.dumps({"prompt": one})}}
        for at, one in enumerate(tasks)
    ]
    return {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}


async def chat(
    gateway: RunningGateway, *messages: dict[str, Any], answer: dict[str, Any] | None = None, status: int = 200
) -> str:
    """Ask, be answered so, and tell the session."""
    choice = {"index": 0, "message": answer or said("Hi"), "finish_reason": "stop"}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [choice]}
    asked = json.dumps({"model": "gpt-4o", "messages": [AGENT, *messages]}).encode()
    fault = Fault(body=json.dumps(body), status=status)
    response = await gateway.ask("POST", "/v1/chat/completions", asked, fault.header())
    return dict(response.headers)["x-luthien-session-id"]


async def test_twins_are_told_by_what_they_were_answered(gateway: RunningGateway) -> None:
    one = await chat(gateway, HELLO, answer=said("I am one"))
    two = await chat(gateway, HELLO, answer=said("I am two"))
    assert one != two
    more = {"role": "user", "content": "More"}
    assert await chat(gateway, HELLO, said("I am one"), more) == one
    assert await chat(gateway, HELLO, said("I am two"), more) == two


async def test_a_streamed_answer_is_known_again(gateway: RunningGateway) -> None:
    async def streamed(text: str) -> str:
        pieces = [{"index": 0, "delta": {"content": one}, "finish_reason": None} for one in text.split(" ")]
        chunks = [{"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [piece]} for piece in pieces]
        lines = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        asked = json.dumps({"model": "gpt-4o", "stream": True, "messages": [AGENT, HELLO]}).encode()
        fault = Fault(body=lines, headers=[("content-type", "text/event-stream")])
        response = await gateway.ask("POST", "/v1/chat/completions", asked, fault.header())
        assert response.body == lines.encode()
        return dict(response.headers)["x-luthien-session-id"]

    one, two = await streamed("a b"), await streamed("c d")
    assert await chat(gateway, HELLO, said("ab"), HELLO) == one
    assert await chat(gateway, HELLO, said("cd"), HELLO) == two


async def test_a_client_that_tries_again_after_an_error_stays(gateway: RunningGateway) -> None:
    first = await chat(gateway, HELLO, status=400)
    assert await chat(gateway, HELLO) == first
    assert await chat(gateway, HELLO) != first


async def test_the_record_tells_how_a_session_was_found_and_who_started_it(stored_gateway: RunningGateway) -> None:
    gateway = stored_gateway
    parent = await chat(gateway, HELLO, answer=said(None, "Summarise the directory"))
    child = await chat(gateway, {"role": "user", "content": "Summarise the directory"}, answer=said("One file"))
    await gateway.restart()
    again = await chat(gateway, {"role": "user", "content": "Summarise the directory"}, said("One file"), HELLO)
    assert again == child != parent
    last, task, first = await gateway.rows()
    assert (first.link, first.parent_session) == ("new", "")
    assert (task.link, task.parent_session) == ("new", parent)
    assert (last.link, last.parent_session) == ("prefix", parent)


async def test_an_opening_stays_an_opening_after_a_restart(stored_gateway: RunningGateway) -> None:
    gateway = stored_gateway
    first = await chat(gateway, HELLO)
    await chat(gateway, HELLO, said("Hi"), {"role": "user", "content": "More"})
    await gateway.restart()
    assert await chat(gateway, HELLO, answer=said("Hello to you")) != first
    assert await chat(gateway, HELLO, said("Hi"), {"role": "user", "content": "More"}) == first


async def test_twins_are_told_apart_after_a_restart(stored_gateway: RunningGateway) -> None:
    gateway = stored_gateway
    one = await chat(gateway, HELLO, answer=said("I am one"))
    two = await chat(gateway, HELLO, answer=said(None, "I am two"))
    three = await chat(gateway, HELLO, answer=said("I am three"))
    await gateway.restart()
    assert await chat(gateway, HELLO, said("I am one"), HELLO) == one
    assert await chat(gateway, HELLO, said("I am three"), HELLO) == three
    result = {"role": "tool", "tool_call_id": "call_0", "content": "done"}
    assert await chat(gateway, HELLO, said(None, "I am two"), result) == two


async def test_a_count_of_tokens_opens_no_session(gateway: RunningGateway) -> None:
    body = json.dumps({"model": "claude-sonnet-4-5", "messages": [HELLO]}).encode()
    headers = {"anthropic-version": "2023-06-01"}
    counted = await gateway.ask("POST", "/v1/messages/count_tokens", body, headers)
    assert "x-luthien-session-id" not in dict(counted.headers)
    assert (await gateway.row()).link == "none"


async def test_metrics_count_what_became_of_sessions(gateway: RunningGateway) -> None:
    await chat(gateway, HELLO)
    await chat(gateway, HELLO, said("Hi"), HELLO)
    text = (await gateway.ask("GET", "/metrics")).body.decode()
    for line in (
        'luthien_session_lookups_total{result="new"} 1.0',
        'luthien_session_lookups_total{result="prefix"} 1.0',
        'luthien_session_lookups_total{result="inferred"} 0.0',
        'luthien_session_events_total{event="created"} 1.0',
        'luthien_session_events_total{event="evicted"} 0.0',
        "luthien_sessions_active 1.0",
    ):
        assert line in text


async def test_settings_bound_what_is_remembered(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(sessions={"max_sessions": 10})
    first = await chat(gateway, HELLO)
    for number in range(10):
        await chat(gateway, {"role": "user", "content": f"opening {number}"})
    assert await chat(gateway, HELLO, said("Hi"), HELLO) != first
