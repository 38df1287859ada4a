"""Ollama's own API: chat, generate and embeddings, whole and as NDJSON."""

from __future__ import annotations

from proxy_core.wire.conversation import (
    Answer,
    AnswerError,
    EndEvent,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
    Usage,
)
from proxy_core.wire.ollama import CHAT_CODEC, EMBED_CODEC, GENERATE_CODEC
from tests.proxy_core.wire.streams import OLLAMA


def test_a_chat_request() -> None:
    conversation = CHAT_CODEC.read_request(
        b'{"model":"o-1","messages":[{"role":"user","content":"look","images":["AAAA"]},'
        b'{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"a": 1}}}]},'
        b'{"role":"tool","tool_name":"f","content":"ok"}],"tools":[{"type":"function","function":{"name":"f"}}]}'
    )
    assert conversation.stream
    user, assistant, tool = conversation.messages
    assert user.blocks == (TextBlock("look"), ImageBlock("image", None, None, b'"AAAA"'))
    (call,) = assistant.blocks
    assert isinstance(call, ToolCallBlock)
    assert (call.call_id, call.name, call.arguments) == ("", "f", '{"a": 1}')
    assert tool.blocks == (ToolResultBlock("f", "ok"),)
    assert [definition.name for definition in conversation.tools] == ["f"]
    assert not CHAT_CODEC.read_request(b'{"messages":[],"stream":false}').stream


def test_a_generate_request_has_its_system_prompt_first() -> None:
    conversation = GENERATE_CODEC.read_request(b'{"model":"o","system":"Be dry.","prompt":"Rain?"}')
    assert [(message.role, message.blocks[0]) for message in conversation.messages] == [
        ("system", TextBlock("Be dry.")),
        ("user", TextBlock("Rain?", b'"Rain?"')),
    ]


def test_whole_answers() -> None:
    answer = GENERATE_CODEC.read_response(
        b'{"model":"o","response":"yes","thinking":"hm","done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":1}'
    )
    assert answer == Answer((ThinkingBlock("hm"), TextBlock("yes")), Usage(3, 1), "stop", None, "o")
    assert EMBED_CODEC.read_response(b'{"model":"o","embeddings":[[0.1]],"prompt_eval_count":4}').usage == Usage(4)
    assert CHAT_CODEC.read_response(b'{"error":"model not found"}').error == AnswerError("error", "model not found")


def test_the_golden_stream() -> None:
    decoder = CHAT_CODEC.stream_decoder()
    events = decoder.feed(OLLAMA)
    assert isinstance(events[-1], EndEvent)
    answer = decoder.finish()
    assert [type(block) for block in answer.blocks] == [ThinkingBlock, TextBlock, ToolCallBlock, TextBlock]
    assert answer.text == 'say "done":true!'
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [("finish", '{"done":true, "\\"done":true}')]
    assert (answer.usage, answer.stop_reason, answer.model, answer.complete) == (Usage(11, 5), "stop", "o-1", True)


def test_an_error_inside_a_stream() -> None:
    decoder = CHAT_CODEC.stream_decoder()
    decoder.feed(b'{"model":"o","message":{"role":"assistant","content":"a"},"done":false}\n{"error":"out of memory"}\n')
    answer = decoder.finish()
    assert (answer.text, answer.error, answer.complete) == ("a", AnswerError("error", "out of memory"), False)


def test_a_body_of_lines_is_read_as_a_stream() -> None:
    assert CHAT_CODEC.read_response(OLLAMA).usage == Usage(11, 5)
