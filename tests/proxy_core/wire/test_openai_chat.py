"""Chat Completions, legacy completions and embeddings as they arrive from OpenAI and from those who imitate it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from proxy_core.wire.conversation import (
    Answer,
    AnswerError,
    EndEvent,
    ImageBlock,
    OpaqueBlock,
    StopEvent,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolResultBlock,
    Usage,
    UsageEvent,
)
from proxy_core.wire.openai_chat import CODEC, COMPLETIONS_CODEC, EMBEDDINGS_CODEC
from tests.proxy_core.wire.streams import CHAT


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def answer_with(message: dict[str, Any], **fields: Any) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return CODEC.read_response(body(id="chat-1", model="m-1", choices=[choice], **fields))


def streamed(*chunks: dict[str, Any] | bytes, done: bool = True) -> Answer:
    decoder = CODEC.stream_decoder()
    for chunk in chunks:
        decoder.feed(chunk if isinstance(chunk, bytes) else b"data: " + body(**chunk) + b"\n\n")
    if done:
        decoder.feed(b"data: [DONE]\n\n")
    return decoder.finish()


def delta(index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": fields}]}


def test_a_request_becomes_a_conversation() -> None:
    request = (
        b'{"model":"m-1","stream":true,"messages":[{"role":"system","content":"Be brief."},'
        b'{"role":"user","content":[{"type":"text","text":"What is this?"},'
        b'{"type":"image_url","image_url":{"url":"https://pictures.example/cat.png"}},'
        b'{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},'
        b'{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}},{"type":"hologram","x":1}]},'
        b'{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function",'
        b'"function":{"name":"look","arguments":"{\\"at\\": 1}"}}]},'
        b'{"role":"tool","tool_call_id":"call_1","content":[{"type":"text","text":"a "},{"type":"text","text":"cat"}]}],'
        b'"tools":[{"type":"function","function":{"name":"look","description":"Looks.","parameters":{"type": "object"}}}]}'
    )
    conversation = CODEC.read_request(request)
    assert (conversation.model, conversation.stream, conversation.problem) == ("m-1", True, None)
    system, user, assistant, tool = conversation.messages
    assert system.blocks == (TextBlock("Be brief.", b'"Be brief."'),)
    text, picture, inline, audio, unknown = user.blocks
    assert isinstance(text, TextBlock)
    assert isinstance(picture, ImageBlock)
    assert picture.url == "https://pictures.example/cat.png"
    assert isinstance(inline, ImageBlock)
    assert (inline.media_type, inline.url) == ("image/png", None)
    assert isinstance(audio, ImageBlock)
    assert (audio.kind, audio.media_type) == ("audio", "audio/wav")
    assert unknown == OpaqueBlock("hologram", b'{"type":"hologram","x":1}')
    (call,) = assistant.blocks
    assert isinstance(call, ToolCallBlock)
    assert (call.call_id, call.name, call.arguments) == ("call_1", "look", '{"at": 1}')
    (result,) = tool.blocks
    assert isinstance(result, ToolResultBlock)
    assert (result.call_id, result.content) == ("call_1", "a cat")
    (definition,) = conversation.tools
    assert (definition.name, definition.description, definition.parameters) == ("look", "Looks.", '{"type": "object"}')
    assert all(message.raw in request for message in conversation.messages)


def test_what_is_no_chat_request_says_so() -> None:
    assert CODEC.read_request(b'{"model":"m"}').problem == "the body has no list of messages"
    assert CODEC.read_request(b"").problem == "the body is empty"
    assert CODEC.read_request(b'{"messages":[7]}').messages[0].blocks == (OpaqueBlock("message", b"7"),)


def test_an_answer_with_text_and_usage() -> None:
    answer = answer_with({"content": "Hello", "refusal": None}, usage={"prompt_tokens": 5, "completion_tokens": 2})
    assert answer == Answer((TextBlock("Hello"),), Usage(5, 2), "stop", None, "m-1", "chat-1")


def test_reasoning_and_calls_stand_in_order() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "not json"}}
    answer = answer_with({"reasoning_content": "hm", "content": "ok", "tool_calls": [call], "refusal": "no"})
    assert answer.blocks == (
        ThinkingBlock("hm"),
        TextBlock("ok"),
        OpaqueBlock("refusal", b'"no"'),
        ToolCallBlock("call_1", "f", "not json"),
    )


def test_reasoning_under_its_other_names() -> None:
    assert answer_with({"reasoning": "a"}).blocks == (ThinkingBlock("a"),)
    details = [{"type": "reasoning.text", "text": "b", "signature": "c2ln"}]
    assert answer_with({"reasoning_details": details}).blocks == (ThinkingBlock("b", "c2ln"),)
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "c"}]}, {"type": "text", "text": "d"}]
    thinking, text = answer_with({"content": parts}).blocks
    assert isinstance(thinking, ThinkingBlock)
    assert isinstance(text, TextBlock)
    assert (thinking.text, text.text) == ("c", "d")


def test_legacy_function_calls_custom_tools_and_several_choices() -> None:
    answer = CODEC.read_response(
        body(
            choices=[
                {"message": {"function_call": {"name": "old", "arguments": "{}"}}, "finish_reason": "function_call"},
                {"message": {"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "grep", "input": "x"}}]}},
                {"message": {"tool_calls": [{"id": "d", "type": "novel", "novel": 1}]}},
            ]
        )
    )
    assert answer.tool_calls == (ToolCallBlock("", "old", "{}"), ToolCallBlock("c", "grep", "x"))
    assert answer.stop_reason == "function_call"
    assert isinstance(answer.blocks[-1], OpaqueBlock)
    assert answer.blocks[-1].kind == "novel"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "prompt_tokens_details": {"audio_tokens": 4, "cached_tokens": 0},
                "completion_tokens_details": {"audio_tokens": 3},
            },
            Usage(9, 5, 0, input_audio_tokens=4, output_audio_tokens=3),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 0}}, Usage(9, 5)),
        (None, None),
        ({}, None),
        ("many", None),
        ({"prompt_tokens": -1, "completion_tokens": 2**63}, None),
        ({"prompt_tokens": True, "completion_tokens": 1.5}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2}}, Usage(9, None, 4, 2)),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 3}, Usage(9, None, 3)),
        ({"prompt_tokens": 9, "cached_tokens": 3, "prompt_tokens_details": None}, Usage(9, None, 3)),
        ({"prompt_tokens": 9, "num_cached_tokens": 3}, Usage(9, None, 3)),
        ({"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 5}}, Usage(None, 9, None, None, 5)),
        (
            {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 8, "completion_tokens_details": {"reasoning_tokens": 5}},
            Usage(1, 7, None, None, 5),
        ),
    ],
)
def test_usage(usage: Any, expected: Usage | None) -> None:
    assert answer_with({"content": "x"}, usage=usage).usage == expected


@pytest.mark.parametrize(
    ("error_body", "error"),
    [
        (b'{"error":{"message":"slow down","type":"tokens","code":"rate_limit"}}', AnswerError("tokens", "slow down")),
        (b'{"error":{"message":"slow down","type":null,"code":429}}', AnswerError("429", "slow down")),
        (b'{"error":"no such model"}', AnswerError("error", "no such model")),
        (b'{"error":"gone","message":"It is gone."}', AnswerError("gone", "It is gone.")),
        (b'{"object":"error","message":"too long","type":"BadRequest","code":400}', AnswerError("BadRequest", "too long")),
        (b'{"detail":"Not Found"}', AnswerError("error", "Not Found")),
        (b'{"detail":[{"msg":"field required"}]}', AnswerError("error", '[{"msg":"field required"}]')),
        (b'{"message":"denied","status":403}', AnswerError("403", "denied")),
        (b'[{"error":{"code":404,"message":"nothing here"}}]', AnswerError("404", "nothing here")),
        (b'"quota"', AnswerError("text", "quota")),
        (b"upstream connect error", AnswerError("text", "upstream connect error")),
        (b"<html><head><title>502 Bad\n Gateway</title></head></html>", AnswerError("html", "502 Bad Gateway")),
        (b"<h1>Sorry</h1><p>down</p>", AnswerError("html", "Sorry down")),
    ],
)
def test_errors_in_every_shape(error_body: bytes, error: AnswerError) -> None:
    assert CODEC.read_response(error_body).error == error


def test_a_body_that_was_cut_off_is_not_complete() -> None:
    answer = CODEC.read_response(b'{"choices":[{"message":{"content":"half of')
    assert (answer.complete, answer.problem, answer.error) == (False, "the JSON ends early", None)


def test_bad_values_are_read_around() -> None:
    answer = CODEC.read_response(b'{"choices":[{"message":{"content":"a\xffb"},"logprobs":NaN}],"usage":{"prompt_tokens":1}}')
    assert answer.text == "a\ufffdb"
    assert answer.usage == Usage(1)
    assert answer.problem is not None
    assert CODEC.read_response(b'{"choices":[{"message":{"content":"\\ud83d!"}}]}').text == "?!"


def test_the_golden_stream() -> None:
    decoder = CODEC.stream_decoder()
    events = decoder.feed(CHAT)
    kinds = [event for event in events if not hasattr(event, "kind")]
    plain = [type(event) for event in kinds]
    assert plain == [
        ThinkingDelta, TextDelta, ToolCallStart, ToolCallDelta, ToolCallStart, ToolCallDelta, ToolCallDelta,
        ToolCallEnd, ToolCallEnd, StopEvent, UsageEvent, EndEvent,
    ]  # fmt: skip
    answer = decoder.finish()
    assert answer == Answer(
        (
            ThinkingBlock("let me see"),
            TextBlock("Grüße 😀 data: [DONE]"),
            ToolCallBlock("call_a", "weather", '{"city":"Bonn"}'),
            ToolCallBlock("call_b", "clock", "{}"),
        ),
        Usage(20, 9, 4, None, 3),
        "tool_calls",
        None,
        "m-1",
        "chat-1",
    )


def test_calls_are_told_apart_where_upstreams_number_them_badly() -> None:
    def call(**fields: Any) -> dict[str, Any]:
        return delta(tool_calls=[fields])

    first = {"name": "f", "arguments": "1"}
    second = {"name": "g", "arguments": "2"}
    same_index = streamed(call(index=0, id="a", function=first), call(index=0, id="b", function=second))
    no_index = streamed(call(id="a", function=first), call(id="b", function=second))
    no_id = streamed(call(function=first), call(function=second))
    repeated = streamed(call(index=0, id="a", function=first), call(index=0, id="a", function={"name": "f", "arguments": "3"}))
    no_start = streamed(call(index=0, function={"arguments": "{}"}))
    assert same_index.tool_calls == no_index.tool_calls == (ToolCallBlock("a", "f", "1"), ToolCallBlock("b", "g", "2"))
    assert no_id.tool_calls == (ToolCallBlock("", "f", "1"), ToolCallBlock("", "g", "2"))
    assert repeated.tool_calls == (ToolCallBlock("a", "f", "13"),)
    assert no_start.tool_calls == (ToolCallBlock("", "", "{}"),)


def test_choices_of_a_stream_are_kept_apart() -> None:
    answer = streamed(delta(1, content="B"), delta(0, content="A"), delta(1, content="b"), delta(0, content="a"))
    assert answer.blocks == (TextBlock("Aa"), TextBlock("Bb"))


def test_a_stream_with_an_error_or_without_its_end() -> None:
    failed = streamed(delta(content="x"), {"error": {"message": "overloaded", "type": "server_error"}}, done=False)
    assert (failed.text, failed.error, failed.complete) == ("x", AnswerError("server_error", "overloaded"), False)
    assert streamed(b'event: error\ndata: {"message":"bad"}\n\n').error == AnswerError("error", "bad")
    assert streamed(b'data: {"error":"plain"}\n\n').error == AnswerError("error", "plain")
    assert streamed(b'{"error":{"message":"no stream","type":"t"}}', done=False).error == AnswerError("t", "no stream")


def test_usage_in_a_stream_may_stand_elsewhere() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    assert streamed({"choices": [], "x_groq": {"id": "r", "usage": usage}}).usage == Usage(3, 4)
    assert streamed({**delta(content="a"), "usage": usage}, {**delta(content="b"), "usage": None}).usage == Usage(3, 4)


def test_legacy_completions() -> None:
    request = COMPLETIONS_CODEC.read_request(b'{"model":"m","prompt":["one","two"]}')
    assert [message.blocks for message in request.messages] == [(TextBlock("one", b'"one"'),), (TextBlock("two", b'"two"'),)]
    tokens = COMPLETIONS_CODEC.read_request(b'{"prompt":[1,2,3]}').messages
    assert tokens[0].blocks == (OpaqueBlock("tokens", b"[1,2,3]"),)
    answer = COMPLETIONS_CODEC.read_response(b'{"choices":[{"text":"a","finish_reason":"length"},{"text":"b"}]}')
    assert (answer.text, answer.stop_reason) == ("ab", "length")
    decoder = COMPLETIONS_CODEC.stream_decoder()
    decoder.feed(b'data: {"choices":[{"index":0,"text":"x"}]}\n\ndata: {"choices":[{"index":0,"text":"y"}]}\n\ndata: [DONE]\n\n')
    assert decoder.finish().text == "xy"


@pytest.mark.parametrize(("tier", "told"), [("priority", "priority"), ("flex", "flex"), ("default", ""), (None, ""), (7, "")])
def test_the_tier_of_an_answer_goes_with_its_usage(tier: Any, told: str) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    body = {"model": "m", "choices": [{"message": {"content": "x"}}], "usage": usage, "service_tier": tier}
    assert CODEC.read_response(json.dumps(body).encode()).usage == Usage(3, 4, tier=told)
    assert streamed({"choices": [], "usage": usage, "service_tier": tier}).usage == Usage(3, 4, tier=told)


def test_embeddings_give_their_usage() -> None:
    response = b'{"object":"list","model":"e","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}'
    answer = EMBEDDINGS_CODEC.read_response(response)
    assert (answer.usage, answer.model, answer.blocks, answer.error) == (Usage(8), "e", (), None)
    assert EMBEDDINGS_CODEC.read_response(b'{"data":[],"usage":{"total_tokens":6}}').usage == Usage(6)
    assert EMBEDDINGS_CODEC.read_response(b'{"detail":"no"}').error == AnswerError("error", "no")
    assert len(EMBEDDINGS_CODEC.read_request(b'{"model":"e","input":["a","b"]}').messages) == 2


def test_usual_answer_is_read_the_same_by_both_ways() -> None:
    """The short way for plain text gives what the long way gives."""
    usages: list[dict[str, object]] = [
        {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
        {"prompt_tokens": 3, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0}},
        {"prompt_tokens": 3, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 0}},
        {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 17, "completion_tokens_details": {"reasoning_tokens": 5}},
        {"prompt_tokens": -3, "completion_tokens": 9},
        {"prompt_tokens": 3},
    ]
    for content in ("Paris.", "", "caf\u00e9 \N{GRINNING FACE}"):
        for usage in usages:
            for stop in ("stop", None):
                message = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
                body = msgspec.json.encode(
                    {
                        "id": "chatcmpl-1",
                        "model": "gpt-5.4",
                        "choices": [{"index": 0, "message": message, "finish_reason": stop}],
                        "usage": usage,
                    }
                )
                # A second, empty field of the long way's own makes the short way give up.
                long_way = body.replace(b'"refusal":null', b'"refusal":""')
                assert CODEC.read_response(body) == CODEC.read_response(long_way)
