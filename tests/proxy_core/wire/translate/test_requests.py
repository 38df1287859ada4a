"""A request says the same in another dialect, and what it cannot say is named."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from hypothesis import given, settings
from hypothesis import strategies as st
from ollama._types import ChatRequest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming, CompletionCreateParamsStreaming
from pydantic import TypeAdapter

from proxy_core.wire.dialects import Operation
from proxy_core.wire.translate import UnreadableBody, can_translate, translate_request
from tests.proxy_core.wire.test_codecs_survive import SHAPES, UGLY

CHAT, MESSAGES, OLLAMA = Operation.CHAT, Operation.MESSAGES, Operation.OLLAMA_CHAT
ALL = (CHAT, MESSAGES, OLLAMA)
PAIRS = [(source, target) for source in ALL for target in ALL if source is not target]

PNG = "iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}

WEATHER_CHAT = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [
            {"type": "text", "text": "Weather here?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        ]},
        {"role": "assistant", "content": "Looking.", "tool_calls": [
            {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
            {"id": "call_b", "type": "function", "function": {"name": "clock", "arguments": ""}},
        ]},
        {"role": "tool", "tool_call_id": "call_a", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_b", "content": "noon"},
        {"role": "user", "content": "And tomorrow?"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "weather", "description": "Tells it", "parameters": SCHEMA}},
        {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}},
    ],
    "max_completion_tokens": 100, "temperature": 0.5, "stop": ["END"], "stream": True,
    "stream_options": {"include_usage": True},
}  # fmt: skip
WEATHER_MESSAGES = {
    "model": "gpt-4o",
    "system": "Be brief.",
    "messages": [
        {"role": "user", "content": [
            {"type": "text", "text": "Weather here?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ]},
        {"role": "assistant", "content": [
            {"type": "text", "text": "Looking."},
            {"type": "tool_use", "id": "call_a", "name": "weather", "input": {"city": "Oslo"}},
            {"type": "tool_use", "id": "call_b", "name": "clock", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "call_a", "content": "rain"},
            {"type": "tool_result", "tool_use_id": "call_b", "content": "noon"},
            {"type": "text", "text": "And tomorrow?"},
        ]},
    ],
    "max_tokens": 100, "temperature": 0.5, "stop_sequences": ["END"], "stream": True,
    "tools": [
        {"name": "weather", "description": "Tells it", "input_schema": SCHEMA},
        {"name": "clock", "input_schema": {"type": "object", "properties": {}}},
    ],
}  # fmt: skip
WEATHER_OLLAMA = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather here?", "images": [PNG]},
        {"role": "assistant", "content": "Looking.", "tool_calls": [
            {"id": "call_a", "function": {"name": "weather", "arguments": {"city": "Oslo"}}},
            {"id": "call_b", "function": {"name": "clock", "arguments": {}}},
        ]},
        {"role": "tool", "content": "rain", "tool_name": "weather", "tool_call_id": "call_a"},
        {"role": "tool", "content": "noon", "tool_name": "clock", "tool_call_id": "call_b"},
        {"role": "user", "content": "And tomorrow?"},
    ],
    "stream": True,
    "tools": WEATHER_CHAT["tools"],
    "options": {"num_predict": 100, "temperature": 0.5, "stop": ["END"]},
}  # fmt: skip
WEATHER = {CHAT: WEATHER_CHAT, MESSAGES: WEATHER_MESSAGES, OLLAMA: WEATHER_OLLAMA}


def translated(
    source: Operation, target: Operation, fields: dict[str, Any], model: str | None = None
) -> tuple[Any, tuple[str, ...]]:
    result = translate_request(source, target, json.dumps(fields).encode(), model=model)
    check(target, json.loads(result.body))
    return json.loads(result.body), result.lost


def check(operation: Operation, fields: dict[str, Any]) -> None:
    """Let the vendor's own types read a request. Raises what they raise."""
    streams = bool(fields.get("stream"))
    kinds: dict[Operation, Any] = {
        CHAT: CompletionCreateParamsStreaming if streams else CompletionCreateParamsNonStreaming,
        MESSAGES: MessageCreateParamsStreaming if streams else MessageCreateParamsNonStreaming,
        OLLAMA: ChatRequest,
    }
    TypeAdapter(kinds[operation]).validate_json(json.dumps(fields))


def user(text: str = "hi", **more: Any) -> dict[str, Any]:
    """A small request, which Chat Completions, Messages and Ollama all understand."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_conversation_with_tools_and_a_picture_says_the_same_everywhere(source: Operation, target: Operation) -> None:
    got, lost = translated(source, target, WEATHER[source])
    expected = json.loads(json.dumps(WEATHER[target]))
    if target is CHAT:
        arguments = expected["messages"][2]["tool_calls"]
        for call, sent in zip(arguments, got["messages"][2]["tool_calls"], strict=True):
            assert json.loads(sent["function"]["arguments"]) == json.loads(call["function"]["arguments"] or "{}")
            call["function"]["arguments"] = sent["function"]["arguments"]
    assert got == expected
    assert lost == ()


def test_where_it_goes_and_with_which_headers() -> None:
    result = translate_request(CHAT, MESSAGES, json.dumps(user()).encode(), model="claude-sonnet-4-5")
    assert result.path == "/v1/messages"
    assert dict(result.headers) == {b"content-type": b"application/json", b"anthropic-version": b"2023-06-01"}
    assert json.loads(result.body)["model"] == "claude-sonnet-4-5"
    assert (result.stream, result.stream_usage) == (False, False)
    assert translate_request(MESSAGES, CHAT, json.dumps(user(stream=True)).encode()).path == "/v1/chat/completions"
    assert translate_request(CHAT, OLLAMA, json.dumps(user()).encode()).path == "/api/chat"


def test_only_chats_are_translated() -> None:
    assert can_translate(CHAT, MESSAGES)
    assert not can_translate(CHAT, CHAT)
    assert not can_translate(Operation.RESPONSES, CHAT)
    with pytest.raises(UnreadableBody, match="responses cannot be translated"):
        translate_request(Operation.RESPONSES, CHAT, b"{}")


def test_ollama_streams_unless_told_otherwise() -> None:
    assert translated(OLLAMA, CHAT, user())[0]["stream"] is True
    assert translated(OLLAMA, CHAT, user())[0]["stream_options"] == {"include_usage": True}
    assert "stream" not in translated(OLLAMA, MESSAGES, user(stream=False))[0]
    assert translated(CHAT, OLLAMA, user())[0]["stream"] is False


@pytest.mark.parametrize(
    ("model", "tokens"),
    [("m", 4096), ("claude-3-haiku-20240307", 4096), ("claude-3-5-sonnet-20241022", 8192), ("claude-sonnet-4-5", 32000)],
)
def test_messages_get_the_limit_that_they_insist_on(model: str, tokens: int) -> None:
    assert translated(CHAT, MESSAGES, user(), model)[0]["max_tokens"] == tokens


CHOICES = [
    ("auto", {"type": "auto"}),
    ("none", {"type": "none"}),
    ("required", {"type": "any"}),
    ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"}),
]


@pytest.mark.parametrize(("chat", "messages"), CHOICES)
def test_tool_choice(chat: Any, messages: Any) -> None:
    tools = WEATHER_CHAT["tools"]
    assert translated(CHAT, MESSAGES, user(tools=tools, tool_choice=chat))[0]["tool_choice"] == messages
    fields = user(tools=WEATHER_MESSAGES["tools"], tool_choice=messages, max_tokens=9)
    assert translated(MESSAGES, CHAT, fields)[0]["tool_choice"] == chat
    got, lost = translated(CHAT, OLLAMA, user(tools=tools, tool_choice=chat))
    assert ("tools" in got, lost) == (chat != "none", ("tool_choice",) if chat not in ("auto", "none") else ())


def test_calls_one_at_a_time() -> None:
    got, _ = translated(CHAT, MESSAGES, user(tools=WEATHER_CHAT["tools"], parallel_tool_calls=False))
    assert got["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    back, _ = translated(MESSAGES, CHAT, got)
    assert (back["tool_choice"], back["parallel_tool_calls"]) == ("auto", False)
    assert translated(CHAT, OLLAMA, user(tools=WEATHER_CHAT["tools"], parallel_tool_calls=False))[1] == ("parallel_tool_calls",)


def test_the_form_of_the_answer() -> None:
    chat = user(response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}})
    got, lost = translated(CHAT, MESSAGES, chat)
    assert (got["output_config"], lost) == ({"format": {"type": "json_schema", "schema": SCHEMA}}, ())
    assert translated(CHAT, OLLAMA, chat)[0]["format"] == SCHEMA
    assert translated(MESSAGES, OLLAMA, got)[0]["format"] == SCHEMA
    back = translated(OLLAMA, CHAT, user(format=SCHEMA))[0]["response_format"]
    assert back == {"type": "json_schema", "json_schema": {"name": "structured_output", "schema": SCHEMA}}
    assert translated(CHAT, OLLAMA, user(response_format={"type": "json_object"}))[0]["format"] == "json"
    assert translated(OLLAMA, CHAT, user(format="json"))[0]["response_format"] == {"type": "json_object"}
    assert translated(OLLAMA, MESSAGES, user(format="json"))[1] == ("response_format json_object",)


def test_thinking_is_asked_for_as_the_model_takes_it() -> None:
    got, lost = translated(CHAT, MESSAGES, user(reasoning_effort="medium"), "claude-sonnet-4-5")
    assert (got["thinking"], lost) == ({"type": "enabled", "budget_tokens": 2048}, ())
    assert got["max_tokens"] > 2048
    got, _ = translated(CHAT, MESSAGES, user(reasoning_effort="high"), "claude-opus-4-6")
    assert (got["thinking"], got["output_config"]) == ({"type": "adaptive"}, {"effort": "high"})
    got, lost = translated(CHAT, MESSAGES, user(reasoning_effort="high", max_tokens=500))
    assert ("thinking" in got, lost) == (False, ())
    got, lost = translated(CHAT, MESSAGES, user(reasoning_effort="low", temperature=0.2))
    assert ("temperature" in got, lost) == (False, ("temperature while thinking",))
    assert "thinking" not in translated(CHAT, MESSAGES, user(reasoning_effort="none"))[0]
    fields = user(thinking={"type": "enabled", "budget_tokens": 10000}, max_tokens=20000)
    assert translated(MESSAGES, CHAT, fields)[0]["reasoning_effort"] == "high"
    assert translated(MESSAGES, OLLAMA, fields, "gpt-oss:20b")[0]["think"] == "high"
    assert translated(MESSAGES, OLLAMA, user(max_tokens=20, thinking={"type": "adaptive"}), "gpt-oss:20b")[0]["think"] == "medium"
    assert translated(OLLAMA, CHAT, user(think="low"))[0]["reasoning_effort"] == "low"
    assert translated(CHAT, OLLAMA, user(reasoning_effort="none"))[0]["think"] is False


def test_thinking_of_the_past() -> None:
    said = [{"type": "thinking", "thinking": "hm", "signature": "sig"}, {"type": "text", "text": "Yes."}]
    history = {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "assistant", "content": said}, {"role": "user", "content": "?"}],
    }
    got, lost = translated(MESSAGES, CHAT, history)
    assert (got["messages"][0], lost) == (
        {"role": "assistant", "content": "Yes.", "reasoning_content": "hm"}, ()
    )  # fmt: skip
    assert translated(MESSAGES, OLLAMA, history)[0]["messages"][0] == {"role": "assistant", "content": "Yes.", "thinking": "hm"}
    got["messages"][0]["reasoning_details"] = [{"type": "reasoning.text", "text": "hm", "signature": "sig"}]
    assert translated(CHAT, MESSAGES, got)[0]["messages"][0]["content"] == said
    del got["messages"][0]["reasoning_details"]
    back, lost = translated(CHAT, MESSAGES, got)
    assert (back["messages"][0]["content"], lost) == ("Yes.", ("thinking without signature",))


def test_a_failed_tool_is_still_a_failure() -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": "no such file", "is_error": True}
    history = user(max_tokens=9)
    history["messages"] = [{"role": "user", "content": [result]}]
    got, lost = translated(MESSAGES, CHAT, history)
    assert (got["messages"], lost) == ([{"role": "tool", "tool_call_id": "c", "content": "Error: no such file"}], ())
    result["content"] = "error 404"
    assert translated(MESSAGES, OLLAMA, history)[0]["messages"][0]["content"] == "error 404"


def test_calls_of_ollama_get_ids_and_results_find_them() -> None:
    calls: list[dict[str, Any]] = [{"function": {"name": name, "arguments": {}}} for name in ("a", "b", "a")]
    history = [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "of b", "tool_name": "b"},
        {"role": "tool", "content": "of a", "tool_name": "a"},
        {"role": "tool", "content": "of the second a"},
    ]
    got, _ = translated(OLLAMA, CHAT, {"model": "m", "messages": history})
    ids = {message["content"]: message["tool_call_id"] for message in got["messages"][1:]}
    assert ids == {"of b": "call_0_1", "of a": "call_0_0", "of the second a": "call_0_2"}
    assert [call["id"] for call in got["messages"][0]["tool_calls"]] == ["call_0_0", "call_0_1", "call_0_2"]


def test_ids_that_messages_do_not_take() -> None:
    calls = [{"id": "functions.weather:0", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    history = [{"role": "assistant", "content": None, "tool_calls": calls},
               {"role": "tool", "tool_call_id": "functions.weather:0", "content": "rain"}]  # fmt: skip
    got = translated(CHAT, MESSAGES, {"model": "m", "messages": history})[0]["messages"]
    made = got[0]["content"][0]["id"]
    assert made.replace("_", "").isalnum()
    assert got[1]["content"][0]["tool_use_id"] == made


LOST = [
    (CHAT, MESSAGES, user(response_format={"type": "json_schema", "json_schema": {
        "name": "a", "schema": {}, "description": "x"}}), ("response_format description",)),
    (CHAT, MESSAGES, user(logprobs=True, n=2, seed=7, logit_bias={"1": 1}), ("logprobs", "logit_bias", "n", "seed")),
    (CHAT, MESSAGES, user(logprobs=False, n=1, store=False, metadata=None, modalities=["text"]), ()),
    (CHAT, MESSAGES, user(temperature=1.5), ("temperature above 1",)),
    (CHAT, OLLAMA, user(tools=[{"type": "custom", "custom": {"name": "sql"}}]), ("tool custom",)),
    (MESSAGES, CHAT, user(max_tokens=9, top_k=5, stop_sequences=list("abcde")), ("top_k", "stop sequences beyond 4")),
    (MESSAGES, CHAT, user(max_tokens=9, mcp_servers=[{"url": "x"}]), ("mcp_servers",)),
    (MESSAGES, CHAT, user(max_tokens=9, tools=[{"type": "bash_20250124", "name": "bash"}]), ("tool bash_20250124",)),
    (OLLAMA, CHAT, user(options={"mirostat": 1}), ("mirostat",)),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "fields", "lost"), LOST)
def test_what_is_lost_is_named(source: Operation, target: Operation, fields: dict[str, Any], lost: tuple[str, ...]) -> None:
    assert translated(source, target, fields)[1] == lost


CACHED = {"cache_control": {"type": "ephemeral"}}
BUDGET: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 9000}
HINTED = [
    (MESSAGES, OLLAMA, user(**BUDGET), ("thinking budget",)),
    (MESSAGES, OLLAMA, user(**BUDGET, output_config={"effort": "high"}), ("reasoning_effort",)),
    (MESSAGES, CHAT, user(max_tokens=9, output_config={"effort": "low"}), ("effort",)),
    (MESSAGES, CHAT, user(max_tokens=9, context_management={"edits": [{"type": "clear_thinking_20251015"}]}),
     ("context_management",)),
    (CHAT, OLLAMA, user(reasoning_effort="low"), ("reasoning_effort",)),
    (CHAT, MESSAGES, user(reasoning_effort="low", tools=[{"type": "function", "function": {"name": "f"}}],
                          tool_choice="required"), ("reasoning_effort",)),
    (OLLAMA, MESSAGES, user(options={"num_ctx": 8192, "num_gpu": 1}), ("num_ctx", "num_gpu")),
    (MESSAGES, CHAT, user(
        max_tokens=9, service_tier="priority", metadata={"user_id": "ana", "team": "a"},
        system=[{"type": "text", "text": "Be brief.", **CACHED}],
        tools=[{"name": "clock", "input_schema": SCHEMA, "eager_input_streaming": True, **CACHED}],
    ), ("service_tier", "metadata", "cache_control", "eager_input_streaming")),
    (MESSAGES, OLLAMA, user(max_tokens=9, metadata={"user_id": "ana"}), ("user",)),
    (CHAT, MESSAGES, user(
        metadata={"a": "b"}, store=True, prompt_cache_key="k", service_tier="flex", stream_options={"include_usage": True},
    ), ("metadata", "prompt_cache_key", "service_tier", "store")),
    (OLLAMA, CHAT, user(keep_alive="5m"), ("keep_alive",)),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "fields", "hints"), HINTED)
def test_hints_are_named_and_are_no_loss(
    source: Operation, target: Operation, fields: dict[str, Any], hints: tuple[str, ...]
) -> None:
    result = translate_request(source, target, json.dumps(fields).encode())
    check(target, json.loads(result.body))
    assert result.lost == ()
    assert sorted(result.hints) == sorted(hints)


BLOCKS = [
    ({"type": "image", "source": {"type": "file", "file_id": "f"}}, ("image file",)),
    ({"type": "redacted_thinking", "data": "x"}, ("redacted_thinking",)),
    ({"type": "search_result", "source": "s"}, ("search_result",)),
    ({"type": "tool_result", "tool_use_id": "c", "content": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}]}, ("image in a tool result",)),
]  # fmt: skip


@pytest.mark.parametrize(("block", "lost"), BLOCKS)
def test_blocks_that_chat_cannot_say(block: dict[str, Any], lost: tuple[str, ...]) -> None:
    fields = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [block, {"type": "text", "text": "hi"}]}]}
    got, names = translated(MESSAGES, CHAT, fields)
    assert names == lost
    assert "hi" in json.dumps(got)


PARTS = [
    ({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, ("audio",)),
    ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, ("image url",)),
    ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "high"}}, ("image detail",)),
    ({"type": "file", "file": {"file_id": "f"}}, ("file",)),
]  # fmt: skip


@pytest.mark.parametrize(("part", "lost"), PARTS)
def test_parts_that_ollama_cannot_say(part: dict[str, Any], lost: tuple[str, ...]) -> None:
    fields = {"model": "m", "messages": [{"role": "user", "content": [part, {"type": "text", "text": "hi"}]}]}
    assert translated(CHAT, OLLAMA, fields)[1] == lost


def test_documents_of_text_are_text() -> None:
    data = b64encode("Grüße".encode()).decode()
    part = {"type": "file", "file": {"filename": "a.txt", "file_data": f"data:text/plain;base64,{data}"}}
    got, lost = translated(CHAT, MESSAGES, {"model": "m", "messages": [{"role": "user", "content": [part]}]})
    source = {"type": "text", "media_type": "text/plain", "data": "Grüße"}
    assert (got["messages"][0]["content"], lost) == ([{"type": "document", "source": source, "title": "a.txt"}], ())
    local = translated(CHAT, OLLAMA, {"model": "m", "messages": [{"role": "user", "content": [part]}]})
    assert (local[0]["messages"][0]["content"], local[1]) == ("Grüße", ())
    assert translated(MESSAGES, CHAT, got)[1] == ("document title",)
    del got["messages"][0]["content"][0]["title"]
    back, lost = translated(MESSAGES, CHAT, got)
    assert (back["messages"], lost) == ([{"role": "user", "content": "Grüße"}], ())


def test_a_document_by_reference_is_lost_where_only_data_is_taken() -> None:
    block = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
    request = user(max_tokens=9)
    request["messages"] = [{"role": "user", "content": [{"type": "text", "text": "Sum up."}, block]}]
    got, lost = translated(MESSAGES, CHAT, request)
    assert (got["messages"][0]["content"], lost) == ([{"type": "text", "text": "Sum up."}], ("document url",))


def test_references_and_documents_go_where_they_are_understood() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
    ]
    got, lost = translated(CHAT, MESSAGES, {"model": "m", "messages": [{"role": "user", "content": parts}]})
    assert lost == ()
    assert got["messages"][0]["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}, "title": "a.pdf"},
    ]
    assert translated(MESSAGES, CHAT, got)[0]["messages"][0]["content"] == parts


def test_system_messages_in_between_are_moved_and_named() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "developer", "content": "b"}, {"role": "user", "content": "c"}]
    got, lost = translated(CHAT, MESSAGES, {"model": "m", "messages": messages})
    assert (got["system"], lost) == ("b", ("place of a system message",))
    assert [message["role"] for message in translated(CHAT, OLLAMA, {"model": "m", "messages": messages})[0]["messages"]] == [
        "user", "system", "user",
    ]  # fmt: skip


AMBIGUOUS = [
    b'{"model":"m","messages":[],"messages":[{"role":"user","content":"x"}]}',
    b'{"model":"m","Messages":[]}',
    b'{"model":"m"}',
    b'{"model":"m","messages":[{"role":"robot","content":"x"}]}',
    b'{"model":"m","messages":[{"role":"user","content":7}]}',
]


@pytest.mark.parametrize(("source", "target"), PAIRS)
@pytest.mark.parametrize("body", AMBIGUOUS + UGLY)
def test_bodies_that_could_be_misread_are_refused(source: Operation, target: Operation, body: bytes) -> None:
    with pytest.raises(UnreadableBody):
        translate_request(source, target, body)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(PAIRS), SHAPES, st.lists(SHAPES, max_size=3))
def test_no_shape_raises_anything_else(pair: tuple[Operation, Operation], shape: Any, messages: list[Any]) -> None:
    for fields in (shape, {**shape, "messages": messages}):
        try:
            body = json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
            translate_request(*pair, body)
        except UnreadableBody:
            pass
