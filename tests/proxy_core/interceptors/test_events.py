"""Transactions as events of schema 1.0."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from proxy_core.interceptors.base import Begun, Finished
from proxy_core.interceptors.events import Event, EventMaker
from tests.proxy_core.interceptors.traffic import begun_for, pair_for, sse

USER = {"role": "user", "content": "What is the weather in Paris?"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"}
USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def chat(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {
        "id": "c1",
        "object": "chat.completion",
        "model": "gpt-4o",
        "system_fingerprint": "fp_1",
        "choices": [choice],
        "usage": USAGE,
    }


def told(maker: EventMaker, *records: Begun | Finished) -> list[Any]:
    """Events of the records, as a collector reads them."""
    return read([event for record in records for event in maker.events_of(record)])


def read(events: list[Event]) -> list[Any]:
    return [json.loads(event.line) for event in events]


def names(events: list[Any]) -> list[str]:
    return [event["name"] for event in events]


def test_one_call_makes_three_events_in_the_envelope_of_the_schema() -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "system", "content": "Be kind."}, USER], "tools": [{"type": "function"}]}
    answer = chat({"role": "assistant", "content": "Sunny.", "refusal": None})
    extra = {"user": "alice", "tags": (("team", "sea"),), "workflow": "wf-1"}
    events = told(EventMaker(), *pair_for("chat", body, answer, **extra))
    assert names(events) == ["session.start", "llm.call.start", "llm.call.finish"]
    for event in events:
        assert set(event) == {
            "schema_version", "timestamp", "trace_id", "span_id", "name", "level", "agent_id", "session_id", "attributes"
        }  # fmt: skip
        assert (event["schema_version"], event["level"]) == ("1.0", "INFO")
        assert (event["agent_id"], event["session_id"]) == ("agent-1", "s-1")
        assert re.fullmatch(r"[0-9a-f]{32}", event["trace_id"])
        assert re.fullmatch(r"[0-9a-f]{16}", event["span_id"])
        assert event["timestamp"].endswith("+00:00")
        common = {"session.id", "os.type", "os.version", "env.python.version", "env.machine.type", "host.name"}
        assert common <= set(event["attributes"])
        assert event["attributes"]["agent_workflow.id"] == "wf-1"
        assert event["attributes"]["session.tags"] == {"team": "sea"}
    start, call, finish = events
    assert len({event["trace_id"] for event in events}) == 1
    assert call["span_id"] == finish["span_id"] != start["span_id"]
    attributes = start["attributes"]
    assert (attributes["user.id"], attributes["client.type"]) == ("alice", "gateway")
    assert (attributes["llm.vendor"], attributes["llm.model"]) == ("openai", "gpt-4o")
    assert (attributes["prompt"], attributes["tools"]) == ("Be kind.", [{"type": "function"}])
    data = call["attributes"]["llm.request.data"]
    assert data["messages"] == body["messages"]
    assert data["_cylestio_metadata"] == {"total_messages": 2, "new_messages": 2, "from_index": 0, "external_session": False}
    done = finish["attributes"]
    assert done["llm.response.duration_ms"] == 250.0
    assert [done[f"llm.usage.{kind}_tokens"] for kind in ("input", "output", "total")] == [12, 5, 17]
    assert done["llm.response.content"] == [{"role": "assistant", "content": "Sunny.", "refusal": None}]
    assert (done["finish_reason"], done["system_fingerprint"]) == ("stop", "fp_1")


def test_a_turn_tells_its_new_messages_only() -> None:
    maker = EventMaker()
    told(maker, *pair_for("chat", {"model": "m", "messages": [USER]}, chat({"role": "assistant", "content": "Sunny."})))
    more = [USER, {"role": "assistant", "content": "Sunny."}, {"role": "user", "content": "And tomorrow?"}]
    (event,) = told(maker, begun_for("chat", {"model": "m", "messages": more}, number=2))
    assert event["name"] == "llm.call.start"
    assert event["attributes"]["llm.request.data"]["messages"] == more[1:]
    assert event["attributes"]["llm.request.data"]["_cylestio_metadata"]["from_index"] == 1


def test_a_tool_result_has_its_name_its_status_and_the_time_since_it_was_asked_for() -> None:
    maker = EventMaker()
    first = told(maker, *pair_for("chat", {"model": "m", "messages": [USER]}, chat(ASKED, "tool_calls"), at=1_000.0))
    assert names(first) == ["session.start", "llm.call.start", "llm.call.finish", "tool.execution"]
    execution = first[-1]["attributes"]
    assert (execution["tool.name"], execution["tool.params"], execution["tool.id"]) == (
        "get_weather",
        {"city": "Paris"},
        "call_1",
    )
    result, _ = told(maker, begun_for("chat", {"model": "m", "messages": [USER, ASKED, RESULT]}, number=2, at=1_002.0))
    assert result["name"] == "tool.result"
    assert result["attributes"]["tool.name"] == "get_weather"
    assert result["attributes"]["tool.status"] == "success"
    assert result["attributes"]["tool.result"] == "18 degrees"
    assert result["attributes"]["tool.execution_time_ms"] == 1_750.0  # the answer that asked ended 250 ms after 1000 s
    assert result["span_id"] == first[-1]["span_id"]
    again = told(maker, begun_for("chat", {"model": "m", "messages": [USER, ASKED, RESULT]}, number=3))
    assert names(again) == ["llm.call.start"], "a retry brings no result anew"


@pytest.mark.parametrize(
    ("message", "known", "name"),
    [
        (RESULT, True, "get_weather"),
        ({**RESULT, "name": "own_name"}, True, "own_name"),
        (RESULT, False, None),
    ],
)
def test_the_name_of_a_tool_comes_from_the_message_or_from_the_call(
    message: dict[str, Any], known: bool, name: str | None
) -> None:
    messages = [USER, ASKED, message] if known else [USER, message]
    events = told(EventMaker(), begun_for("chat", {"model": "m", "messages": messages}))
    (result,) = [event for event in events if event["name"] == "tool.result"]
    assert result["attributes"]["tool.name"] == name
    assert result["attributes"]["tool.execution_time_ms"] is None, "nobody saw the answer that asked"


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("fine", "success"),
        ('{"error": "no such city"}', "error"),
        ('{"error": null, "x": 1}', "success"),
        ('{"isError": true}', "error"),
    ],
)
def test_a_result_that_says_it_is_an_error_is_one(content: str, status: str) -> None:
    events = told(EventMaker(), begun_for("chat", {"model": "m", "messages": [USER, ASKED, {**RESULT, "content": content}]}))
    assert [event["attributes"]["tool.status"] for event in events if event["name"] == "tool.result"] == [status]


@pytest.mark.parametrize(("failed", "status"), [(True, "error"), (False, "success")])
def test_messages_mark_their_failed_results(failed: bool, status: str) -> None:
    asked = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}]}
    content = [{"type": "tool_result", "tool_use_id": "t1", "content": '{"error": 1}', "is_error": failed}]
    body = {"model": "claude", "max_tokens": 9, "messages": [USER, asked, {"role": "user", "content": content}]}
    (result,) = [one for one in told(EventMaker(), begun_for("messages", body)) if one["name"] == "tool.result"]
    assert (result["attributes"]["tool.name"], result["attributes"]["tool.status"]) == ("look", status)


def test_responses_with_parallel_calls_are_understood() -> None:
    maker = EventMaker()
    calls = [
        {"type": "function_call", "id": f"fc{n}", "call_id": f"call_{n}", "name": f"tool_{n}", "arguments": f'{{"n": {n}}}'}
        for n in (1, 2)
    ]
    answer = {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "gpt-4o",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Looking."}]}, *calls],
        "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10},
    }
    user = {"type": "message", "role": "user", "content": "go"}
    first = told(maker, *pair_for("responses", {"model": "gpt-4o", "instructions": "Be quick.", "input": [user]}, answer))
    assert first[0]["attributes"]["prompt"] == "Be quick."
    finish = first[2]["attributes"]
    assert [block["type"] for block in finish["llm.response.content"]] == ["text", "tool_use", "tool_use"]
    assert finish["llm.usage.total_tokens"] == 10
    assert [event["attributes"]["tool.params"] for event in first[3:]] == [{"n": 1}, {"n": 2}]
    outputs = [{"type": "function_call_output", "call_id": f"call_{n}", "output": f"{n}"} for n in (1, 2)]
    body = {"model": "gpt-4o", "input": [user, *calls, *outputs]}
    second = told(maker, begun_for("responses", body, number=2, at=1_001.0))
    assert [(e["name"], e["attributes"].get("tool.name")) for e in second] == [
        ("tool.result", "tool_1"),
        ("tool.result", "tool_2"),
        ("llm.call.start", None),
    ]
    continued = {"model": "gpt-4o", "previous_response_id": "resp_1", "input": [outputs[0]]}
    third = told(EventMaker(), begun_for("responses", continued))
    assert names(third) == ["session.start", "tool.result", "llm.call.start"]


def test_the_usage_of_a_messages_stream_has_both_sides() -> None:
    stream = sse(
        {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "model": "claude", "content": [],
         "usage": {"input_tokens": 5, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 20}},
        {"type": "message_stop"},
        named=True,
    )  # fmt: skip
    body = {"model": "claude", "max_tokens": 9, "stream": True, "messages": [USER]}
    finish = told(EventMaker(), *pair_for("messages", body, stream))[-1]["attributes"]
    assert [finish[f"llm.usage.{kind}_tokens"] for kind in ("input", "output", "total")] == [5, 20, 25]
    assert finish["llm.response.content"] == [{"type": "text", "text": "Hello"}]
    assert finish["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"input_tokens": 100, "output_tokens": 50}, [100, 50, 150]),
        ({"input_tokens": 100}, [100, None, None]),
        (None, [None, None, None]),
    ],
)
def test_what_is_not_counted_is_unknown(usage: dict[str, int] | None, counts: list[int | None]) -> None:
    answer = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "model": "c",
        "content": [],
        "stop_reason": "end_turn",
        "usage": usage,
    }
    finish = told(EventMaker(), *pair_for("messages", {"model": "c", "max_tokens": 1, "messages": [USER]}, answer))[-1][
        "attributes"
    ]
    assert [finish[f"llm.usage.{kind}_tokens"] for kind in ("input", "output", "total")] == counts


def test_every_choice_of_a_stream_is_a_message_of_its_own() -> None:
    def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion.chunk", "model": "m", "system_fingerprint": "fp_9", "choices": [choice]}

    piece = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a":'}}
    stream = sse(
        chunk(0, {"role": "assistant", "content": "Hel"}),
        chunk(1, {"role": "assistant", "content": "Bon"}),
        chunk(0, {"content": "lo"}, "stop"),
        chunk(1, {"content": "jour", "tool_calls": [piece]}),
        chunk(1, {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]}, "tool_calls"),
        done=True,
    )
    body = {"model": "m", "n": 2, "stream": True, "messages": [USER]}
    events = told(EventMaker(), *pair_for("chat", body, stream))
    first, second = events[2]["attributes"]["llm.response.content"]
    assert first == {"role": "assistant", "content": "Hello"}
    assert second["content"] == "Bonjour"
    assert second["tool_calls"] == [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}]
    assert events[2]["attributes"]["system_fingerprint"] == "fp_9"
    assert events[3]["attributes"]["tool.params"] == {"a": 1}


ASKS: dict[str, dict[str, Any]] = {
    "chat": chat(ASKED, "tool_calls"),
    "chat, as it was": chat({"role": "assistant", "function_call": {"name": "get_weather", "arguments": "{}"}}, "function_call"),
    "messages": {
        "type": "message",
        "content": [{"type": "tool_use", "id": "t", "name": "get_weather", "input": {}}],
        "stop_reason": "tool_use",
    },
    "responses": {
        "object": "response",
        "status": "completed",
        "output": [{"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": "{}"}],
    },
    "responses, of one's own": {
        "object": "response",
        "status": "completed",
        "output": [{"type": "custom_tool_call", "call_id": "c", "name": "get_weather", "input": "x"}],
    },
    "ollama_chat": {
        "message": {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "get_weather", "arguments": {}}}]},
        "done": True,
    },
}


@pytest.mark.parametrize("letters", ["as they are", "as numbers"])
@pytest.mark.parametrize("case", ASKS)
def test_each_call_of_a_tool_is_an_event_however_it_is_written(case: str, letters: str) -> None:
    raw = json.dumps(ASKS[case])
    if letters == "as numbers":
        for word in ("tool_calls", "function_call", "tool_use", "custom_tool_call"):
            raw = raw.replace(f'"{word}"', '"' + "".join(f"\\u{ord(letter):04x}" for letter in word) + '"')
    body = {"model": "gpt-4o", "messages": [USER]}
    events = told(EventMaker(), *pair_for(case.partition(",")[0], body, raw.encode()))
    calls = [event["attributes"]["tool.name"] for event in events if event["name"] == "tool.execution"]
    assert calls == ["get_weather"]


@pytest.mark.parametrize(
    ("system", "prompt"),
    [
        ("", "default-system"),
        ("   ", "   "),
        (None, "default-system"),
        ([{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}], "One.\nTwo."),
    ],
)
def test_the_prompt_is_told_as_text(system: Any, prompt: str) -> None:
    body = {"model": "c", "max_tokens": 1, "messages": [USER]} | ({"system": system} if system is not None else {})
    assert told(EventMaker(), begun_for("messages", body))[0]["attributes"]["prompt"] == prompt


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        ({"outcome": "cancelled", "error": "the client left"}, "cancelled"),
        ({"outcome": "truncated", "complete": False}, "truncated"),
        ({"outcome": "error", "status": 504, "error": "too slow", "body": b""}, "http_504"),
        ({"outcome": "refused", "status": 200, "error": "not allowed"}, "refused"),
    ],
)
def test_a_call_that_fails_has_an_error_and_no_finish(outcome: dict[str, Any], kind: str) -> None:
    body = {"model": "m", "messages": [USER]}
    events = told(EventMaker(), *pair_for("chat", body, chat({"role": "assistant", "content": "x"}), outcome))
    assert names(events) == ["session.start", "llm.call.start", "llm.call.error"]
    assert events[-1]["level"] == "ERROR"
    assert events[-1]["attributes"]["error.type"] == kind
    assert events[-1]["span_id"] == events[-2]["span_id"]


def test_an_error_in_a_stream_of_status_200_is_one() -> None:
    stream = sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, named=True)
    body = {"model": "c", "max_tokens": 1, "stream": True, "messages": [USER]}
    error = told(EventMaker(), *pair_for("messages", body, stream))[-1]
    assert error["name"] == "llm.call.error"
    assert error["attributes"]["error.type"] == "overloaded_error"
    assert (error["attributes"]["error.message"], error["attributes"]["http.status_code"]) == ("Overloaded", 200)


def test_sessions_end_when_idle_when_pushed_out_and_with_the_gateway() -> None:
    clock = Clock()
    maker = EventMaker(max_sessions=2, idle_s=60.0, clock=clock)
    body = {"model": "m", "messages": [USER]}
    for session in ("s-1", "s-2"):
        told(maker, begun_for("chat", body, session_id=session, workflow="wf"))
    (pushed,) = [one for one in told(maker, begun_for("chat", body, session_id="s-3")) if one["name"] == "session.end"]
    assert (pushed["session_id"], pushed["attributes"]["session.end_reason"]) == ("s-1", "evicted")
    assert pushed["attributes"]["agent_workflow.id"] == "wf"
    clock.now = 59.0
    assert maker.ended_sessions() == []
    told(maker, begun_for("chat", body, session_id="s-2", number=4))
    clock.now = 61.0
    (idle,) = read(maker.ended_sessions())
    assert (idle["session_id"], idle["attributes"]["session.end_reason"]) == ("s-3", "idle")
    (last,) = read(maker.close())
    assert (last["session_id"], last["attributes"]["session.end_reason"]) == ("s-2", "shutdown")
    assert names(told(maker, begun_for("chat", body, session_id="s-2", number=5)))[0] == "session.start"


def test_a_side_request_leaves_the_conversation_where_it_was() -> None:
    maker = EventMaker()
    told(maker, begun_for("chat", {"model": "m", "messages": [USER]}))
    title = {"model": "small", "messages": [{"role": "user", "content": "Give this a title"}]}
    (side,) = told(maker, begun_for("chat", title, number=2, side=True))
    assert side["attributes"]["llm.request.side"] is True
    more = [USER, {"role": "assistant", "content": "x"}, USER]
    (event,) = told(maker, begun_for("chat", {"model": "m", "messages": more}, number=3))
    assert event["attributes"]["llm.request.data"]["_cylestio_metadata"]["from_index"] == 1


def test_requests_in_which_no_model_speaks_make_no_events() -> None:
    assert told(EventMaker(), begun_for("models", b"", method="GET")) == []


@pytest.mark.parametrize("body", [b"", b"{", b"null", b'{"messages": 7}', b'{"messages": [1, null, "x"]}', b"\xff\xfe"])
def test_a_body_that_cannot_be_read_still_makes_events(body: bytes) -> None:
    begun, finished = pair_for("chat", body, b"not json at all", {"status": 400, "outcome": "error"})
    assert names(told(EventMaker(), begun, finished)) == ["session.start", "llm.call.start", "llm.call.error"]


def test_no_event_quotes_a_key() -> None:
    key, pasted = "PLAINSECRET-without-any-form-77", "sk-proj-" + "a1B2c3D4" * 5
    ask = {"role": "user", "content": f"use {key} and {pasted}"}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"k": key})}}
    body = {"model": f"m-{pasted}", "messages": [{"role": "system", "content": key}, ask], "tools": [{"k": key}]}
    answer = chat({"role": "assistant", "content": key, "tool_calls": [call]})
    maker = EventMaker()
    said = {
        "secrets": (key.encode(),),
        "session_id": f"s-{key}",
        "agent": pasted,
        "user": key,
        "tags": ((key, pasted),),
        "workflow": key,
    }
    events = told(maker, *pair_for("chat", body, answer, **said))
    result = {"role": "tool", "tool_call_id": "c", "content": pasted}
    more = {"messages": [ask, {"role": "assistant", "tool_calls": [call]}, result]}
    events += told(maker, begun_for("chat", more, **said))
    events += read(maker.close())
    assert names(events)[-1] == "session.end"
    assert key not in json.dumps(events)
    assert pasted not in json.dumps(events)


def test_a_key_that_comes_in_pieces_of_a_stream_is_taken_out_too() -> None:
    key = "sk-ant-api03-" + "abcdefgh12345678" * 3

    def chunk(text: str) -> dict[str, Any]:
        return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}

    stream = sse(*(chunk(key[at : at + 4]) for at in range(0, len(key), 4)), done=True)
    events = told(EventMaker(), *pair_for("chat", {"model": "m", "stream": True, "messages": [USER]}, stream, {"outcome": "ok"}))
    assert events[-1]["attributes"]["llm.response.content"] == [{"role": "assistant", "content": "[redacted]"}]
