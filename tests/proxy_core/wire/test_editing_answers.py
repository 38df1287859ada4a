"""Whole answers stay answers that SDKs read, whatever a policy changes in them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import anthropic.types
import ollama
import openai.types
import openai.types.chat
import openai.types.responses
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Block, OpaqueBlock, TextBlock, ThinkingBlock, ToolCallBlock
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing import UnreadableBody, answer_texts, edit_answer
from tests.proxy_core.wire.test_codecs_survive import SHAPES, UGLY, VALUES

ANSWERED = [
    Operation.CHAT,
    Operation.COMPLETIONS,
    Operation.RESPONSES,
    Operation.MESSAGES,
    Operation.OLLAMA_CHAT,
    Operation.OLLAMA_GENERATE,
]
Edit = Callable[[Block], Sequence[Block] | None]


def chat_call(call_id: str, name: str, arguments: str = '{"path": "a"}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def chat(*messages: dict[str, Any], reason: str = "tool_calls") -> bytes:
    choices = [
        {"index": number, "message": {"role": "assistant", "content": None, **message}, "logprobs": None, "finish_reason": reason}
        for number, message in enumerate(messages)
    ]
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "cost": 1.50}
    answer = {"id": "chatcmpl-AbC", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
    return json.dumps(answer).encode()


def messages(*content: dict[str, Any], reason: str = "tool_use") -> bytes:
    answer = {
        "id": "msg_01Xy", "type": "message", "role": "assistant", "model": "m", "content": list(content), "stop_reason": reason,
        "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 4, "service_tier": "standard"},
    }  # fmt: skip
    return json.dumps(answer).encode()


def tool_use(call_id: str, name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": {"path": "a"}}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def responses(*output: dict[str, Any], **more: Any) -> bytes:
    answer = {
        "id": "resp_9z", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": list(output),
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], **more,
    }  # fmt: skip
    return json.dumps(answer).encode()


def said(*parts: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": part, "annotations": []} for part in parts]
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": content}


def function_call(number: int, name: str) -> dict[str, Any]:
    return {
        "type": "function_call", "id": f"fc_{number}", "call_id": f"c{number}", "name": name, "arguments": '{"path": "a"}',
        "status": "completed",
    }  # fmt: skip


def ollama_chat(*names: str, content: str = "") -> bytes:
    calls = [{"function": {"name": name, "arguments": {"path": "a"}}} for name in names]
    message = {"role": "assistant", "content": content, "tool_calls": calls}
    return json.dumps({"model": "o", "message": message, "done": True, "done_reason": "stop", "eval_count": 4}).encode()


def edited(operation: Operation, body: bytes, edit: Edit) -> Any:
    new, changed = edit_answer(operation, "application/json", body, edit)
    assert (new is body) == (changed == 0)
    return json.loads(new)


def block_rm(block: Block) -> Sequence[Block] | None:
    """A policy that says no to the tool `rm`."""
    return [TextBlock("rm is not allowed.")] if isinstance(block, ToolCallBlock) and block.name == "rm" else None


def other_path(block: Block) -> Sequence[Block] | None:
    """A policy that sends every call somewhere else."""
    return [replace(block, arguments='{"path": "b"}', raw=b"")] if isinstance(block, ToolCallBlock) else None


def upper(block: Block) -> Sequence[Block] | None:
    return [TextBlock(block.text.upper())] if isinstance(block, TextBlock) else None


def drop(block: Block) -> Sequence[Block] | None:
    return []


# --- Chat Completions ---


def test_a_blocked_call_of_a_chat_becomes_content() -> None:
    body = chat({"content": "On it.", "tool_calls": [chat_call("c1", "rm")]})
    answer = edited(Operation.CHAT, body, block_rm)
    completion = openai.types.chat.ChatCompletion.model_validate(answer, strict=True)
    (choice,) = completion.choices
    assert (choice.message.content, choice.message.tool_calls) == ("On it.\n\nrm is not allowed.", None)
    assert choice.finish_reason == "stop"
    assert answer["usage"] == json.loads(body)["usage"]


def test_a_turn_of_passed_and_blocked_calls_keeps_its_reason() -> None:
    body = chat({"tool_calls": [chat_call("c1", "ls"), chat_call("c2", "rm")]})
    (choice,) = edited(Operation.CHAT, body, block_rm)["choices"]
    assert choice["message"]["tool_calls"] == [chat_call("c1", "ls")]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("rm is not allowed.", "tool_calls")


def test_each_choice_is_edited_on_its_own() -> None:
    body = chat({"tool_calls": [chat_call("c1", "rm")]}, {"tool_calls": [chat_call("c2", "ls")]}, {"content": "hi"})
    first, second, third = edited(Operation.CHAT, body, block_rm)["choices"]
    assert (first["index"], first["finish_reason"], "tool_calls" in first["message"]) == (0, "stop", False)
    assert [second, third] == json.loads(body)["choices"][1:]


def test_changed_arguments_keep_id_index_and_type() -> None:
    call = {"index": 3, **chat_call("c1", "ls"), "extra_content": {"google": {"thought_signature": "c2ln"}}}
    (choice,) = edited(Operation.CHAT, chat({"tool_calls": [call]}), other_path)["choices"]
    call["function"]["arguments"] = '{"path": "b"}'
    assert choice["message"]["tool_calls"] == [call]
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")


def test_a_legacy_function_call() -> None:
    body = chat({"function_call": {"name": "rm", "arguments": "{}"}}, reason="function_call")
    (choice,) = edited(Operation.CHAT, body, block_rm)["choices"]
    assert choice["message"] == {"role": "assistant", "content": "rm is not allowed."}
    assert choice["finish_reason"] == "stop"
    (choice,) = edited(Operation.CHAT, body, other_path)["choices"]
    assert choice["message"]["function_call"] == {"name": "rm", "arguments": '{"path": "b"}'}
    assert choice["finish_reason"] == "function_call"


@pytest.mark.parametrize("reason", ["length", "content_filter", "stop"])
def test_other_reasons_stay(reason: str) -> None:
    body = chat({"tool_calls": [chat_call("c1", "rm")]}, reason=reason)
    assert edited(Operation.CHAT, body, block_rm)["choices"][0]["finish_reason"] == reason


def test_what_repeats_the_old_text_goes() -> None:
    answer = json.loads(chat({"content": "sk-secret", "reasoning": "sk-secret", "reasoning_details": [{"text": "sk-secret"}]}))
    answer["choices"][0]["logprobs"] = {"content": [{"token": "sk-secret", "logprob": 0.0, "bytes": None, "top_logprobs": []}]}

    def strip(block: Block) -> Sequence[Block] | None:
        if isinstance(block, TextBlock | ThinkingBlock):
            return [replace(block, text=block.text.replace("sk-secret", "***"), raw=b"")]
        return None

    new, changed = edit_answer(Operation.CHAT, "application/json", json.dumps(answer).encode(), strip)
    assert changed == 2
    assert b"sk-secret" not in new
    assert json.loads(new)["choices"][0]["message"] == {"role": "assistant", "content": "***", "reasoning": "***"}


def test_a_content_list_keeps_its_parts() -> None:
    body = chat(
        {"content": [text("a", x=1), {"type": "image_url", "image_url": {"url": "u"}}], "tool_calls": [chat_call("c", "rm")]}
    )
    (choice,) = edited(Operation.CHAT, body, lambda block: block_rm(block) or upper(block))["choices"]
    assert choice["message"]["content"] == [
        text("A", x=1), {"type": "image_url", "image_url": {"url": "u"}}, text("rm is not allowed."),
    ]  # fmt: skip


def test_a_call_that_a_policy_adds_is_a_legal_one() -> None:
    body = chat({"content": "hi"}, reason="stop")
    (choice,) = edited(Operation.CHAT, body, lambda block: [block, ToolCallBlock("", "ls", "{}")])["choices"]
    assert choice["message"]["content"] == "hi"
    assert choice["message"]["tool_calls"] == [chat_call("call_chatcmplAbC_1", "ls", "{}")]


def test_legacy_completions() -> None:
    choice = {"text": "hi", "index": 0, "logprobs": {"tokens": ["hi"]}, "finish_reason": "stop"}
    body = json.dumps({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}).encode()
    answer = edited(Operation.COMPLETIONS, body, upper)
    assert answer["choices"] == [{**choice, "text": "HI", "logprobs": None}]
    openai.types.Completion.model_validate(answer, strict=True)
    assert edited(Operation.COMPLETIONS, body, drop)["choices"][0]["text"] == ""
    with pytest.raises(UnreadableBody):
        edited(Operation.COMPLETIONS, body, lambda _: [ToolCallBlock("c", "ls", "{}")])


# --- Messages ---


def test_text_in_place_of_a_call_stands_before_the_calls_that_remain() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    body = messages(thinking, text("Both."), tool_use("t1", "ls"), tool_use("t2", "rm"), tool_use("t3", "ls"))
    answer = edited(Operation.MESSAGES, body, block_rm)
    assert answer["content"] == [
        thinking, text("Both."), text("rm is not allowed."), tool_use("t1", "ls"), tool_use("t3", "ls"),
    ]  # fmt: skip
    assert answer["stop_reason"] == "tool_use"
    anthropic.types.Message.model_validate_json(json.dumps(answer), strict=True)


def test_without_calls_the_turn_ends() -> None:
    answer = edited(Operation.MESSAGES, messages(tool_use("t1", "rm")), block_rm)
    assert (answer["content"], answer["stop_reason"]) == ([text("rm is not allowed.")], "end_turn")
    anthropic.types.Message.model_validate_json(json.dumps(answer), strict=True)
    answer = edited(Operation.MESSAGES, messages(tool_use("t1", "rm")), drop)
    assert (answer["content"], answer["stop_reason"]) == ([], "end_turn")


@pytest.mark.parametrize("reason", ["end_turn", "max_tokens", "stop_sequence", "refusal", "pause_turn"])
def test_other_stop_reasons_of_messages_stay(reason: str) -> None:
    assert edited(Operation.MESSAGES, messages(tool_use("t1", "rm"), reason=reason), block_rm)["stop_reason"] == reason


def test_a_tool_use_reason_stays_where_only_text_changed() -> None:
    assert edited(Operation.MESSAGES, messages(text("a")), upper)["stop_reason"] == "tool_use"


def test_untouched_blocks_keep_their_bytes() -> None:
    body = (
        b'{"id":"msg_1","content":[{"type":"thinking","thinking":"\\u00e9","signature":"a+/="}, '
        b'{"type":"text" ,"text":"a","citations":null},'
        b'{"type":"tool_use","id":"t","name":"f","input":{"n": 1.0}}],"stop_reason":"tool_use"}'
    )
    new, changed = edit_answer(Operation.MESSAGES, "application/json", body, upper)
    assert changed == 1
    assert new == (
        b'{"id":"msg_1","content":[{"type":"thinking","thinking":"\\u00e9","signature":"a+/="},'
        b'{"type":"text","text":"A","citations":null},'
        b'{"type":"tool_use","id":"t","name":"f","input":{"n": 1.0}}],"stop_reason":"tool_use"}'
    )


def test_changed_input_is_an_object() -> None:
    answer = edited(Operation.MESSAGES, messages(tool_use("t1", "ls")), other_path)
    assert answer["content"] == [{**tool_use("t1", "ls"), "input": {"path": "b"}}]
    for arguments in ("", "[]", "{", "null"):

        def spoil(block: Block, arguments: str = arguments) -> Sequence[Block] | None:
            return [replace(block, arguments=arguments)] if isinstance(block, ToolCallBlock) else None

        with pytest.raises(UnreadableBody):
            edited(Operation.MESSAGES, messages(tool_use("t1", "ls")), spoil)


# --- Responses ---


def test_a_blocked_call_of_responses_becomes_a_message() -> None:
    body = responses({"type": "reasoning", "id": "rs_1", "summary": []}, function_call(1, "rm"), function_call(2, "ls"))
    answer = edited(Operation.RESPONSES, body, block_rm)
    parsed = openai.types.responses.Response.model_validate(answer)
    assert [item.type for item in parsed.output] == ["reasoning", "message", "function_call"]
    assert parsed.output_text == "rm is not allowed."
    assert (parsed.status, parsed.output[1].id, answer["output"][2]) == ("completed", "msg_resp9z_1", function_call(2, "ls"))


def test_parts_of_messages_of_responses() -> None:
    body = responses(said("a", "b"), said("c"), output_text="abc")

    def edit(block: Block) -> Sequence[Block] | None:
        assert isinstance(block, TextBlock)
        return {"a": [], "b": [TextBlock("B"), TextBlock("+")], "c": []}[block.text]

    answer = edited(Operation.RESPONSES, body, edit)
    assert answer["output"] == [said("B", "+")]
    assert answer["output_text"] == "B+"


def test_changed_calls_of_responses_keep_their_ids() -> None:
    patch = {"type": "apply_patch_call", "id": "p1", "call_id": "c9", "operation": {"type": "delete_file", "path": "a"}}
    custom = {"type": "custom_tool_call", "id": "ct", "call_id": "c8", "name": "sql", "input": "select 1"}
    answer = edited(Operation.RESPONSES, responses(function_call(1, "ls"), patch, custom), other_path)
    assert answer["output"] == [
        {**function_call(1, "ls"), "arguments": '{"path": "b"}'},
        {**patch, "operation": {"path": "b"}},
        {**custom, "input": '{"path": "b"}'},
    ]


def test_reasoning_of_responses() -> None:
    summary = [{"type": "summary_text", "text": "why"}]
    body = responses({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "Zm9v"})

    def shorter(block: Block) -> Sequence[Block] | None:
        return [replace(block, text="…")] if isinstance(block, ThinkingBlock) else None

    (item,) = edited(Operation.RESPONSES, body, shorter)["output"]
    assert item == {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "…"}],
        "encrypted_content": "Zm9v",
    }
    assert edited(Operation.RESPONSES, body, drop)["output"] == []


# --- Ollama ---


def test_a_blocked_call_of_ollama() -> None:
    answer = edited(Operation.OLLAMA_CHAT, ollama_chat("ls", "rm"), block_rm)
    parsed = ollama.ChatResponse.model_validate(answer)
    assert parsed.message.content == "rm is not allowed."
    assert parsed.message.tool_calls is not None
    assert [call.function.name for call in parsed.message.tool_calls] == ["ls"]
    answer = edited(Operation.OLLAMA_CHAT, ollama_chat("rm", content="Hm."), block_rm)
    assert answer["message"] == {"role": "assistant", "content": "Hm.\n\nrm is not allowed."}
    assert (answer["done_reason"], answer["eval_count"]) == ("stop", 4)


def test_changed_arguments_of_ollama_are_an_object() -> None:
    answer = edited(Operation.OLLAMA_CHAT, ollama_chat("ls"), other_path)
    assert answer["message"]["tool_calls"] == [{"function": {"name": "ls", "arguments": {"path": "b"}}}]


def test_generated_text_takes_its_tokens_with_it() -> None:
    body = b'{"model":"o","response":"hi","thinking":"hm","done":true,"context":[1,2]}'
    assert edited(Operation.OLLAMA_GENERATE, body, upper) == {"model": "o", "response": "HI", "thinking": "hm", "done": True}
    assert edited(Operation.OLLAMA_GENERATE, body, drop) == {"model": "o", "response": "", "done": True}


# --- for all answers ---


def test_what_holds_no_blocks_stays() -> None:
    for operation in ANSWERED:
        for body in (
            b'{"error":{"message":"no"}}',
            b"{}",
            b'{"type":"error","error":{"type":"overloaded_error","message":"no"}}',
        ):
            assert edit_answer(operation, "application/json", body, drop) == (body, 0)
    assert edit_answer(Operation.EMBEDDINGS, "application/json", b"[", drop) == (b"[", 0)
    assert edit_answer(Operation.OTHER, "audio/mpeg", b"\x00", drop) == (b"\x00", 0)


def test_a_body_of_many_lines_is_still_one_answer() -> None:
    body = json.dumps(json.loads(ollama_chat("rm")), indent=1).encode()
    assert edited(Operation.OLLAMA_CHAT, body, block_rm)["message"]["content"] == "rm is not allowed."


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.CHAT, b'{"choices":[{"message":{"content":"a","content":"b"}}]}'),
        (Operation.MESSAGES, b'{"content":[{"type":"text","text":"a"}],"content":[]}'),
        (Operation.OLLAMA_CHAT, b'{"message":{"content":"a"},"message":{"content":"b"}}'),
    ],
)
def test_an_answer_that_two_readers_read_differently_is_refused(operation: Operation, body: bytes) -> None:
    with pytest.raises(UnreadableBody):
        edit_answer(operation, "application/json", body, lambda _: None)


def test_a_block_that_an_answer_cannot_carry_is_refused() -> None:
    for operation, body in ((Operation.CHAT, chat({"content": "a"})), (Operation.MESSAGES, messages(text("a")))):
        with pytest.raises(UnreadableBody):
            edited(operation, body, lambda _: [OpaqueBlock("noise", b"\xff")])


def test_the_texts_of_an_answer() -> None:
    assert answer_texts(Operation.CHAT, chat({"content": "a"}, {"content": "b"})) == ("a", "b")
    assert answer_texts(Operation.CHAT, b'data: {"choices":[{"index":0,"delta":{"content":"s"}}]}\n\ndata: [DONE]\n\n') == ("s",)
    assert answer_texts(Operation.OTHER, b"\x00") == ()
    with pytest.raises(UnreadableBody):
        answer_texts(Operation.MESSAGES, b"<html>")


def offered(operation: Operation, body: bytes) -> list[Block] | None:
    """The blocks of a body that is left as it is; None where it cannot be read."""
    blocks: list[Block] = []
    try:
        new, changed = edit_answer(operation, "application/json", body, blocks.append)
        again, none = edit_answer(operation, "application/json", body, lambda block: [block])
    except UnreadableBody:
        return None
    assert (new, changed, again, none) == (body, 0, body, 0)
    assert new is body
    assert again is body
    return blocks


def check(operation: Operation, body: bytes) -> None:
    blocks = offered(operation, body)
    if blocks is None:
        return
    codec = codec_for(operation)
    assert codec is not None
    read = codec.read_response(body)
    if operation not in (Operation.OLLAMA_CHAT, Operation.OLLAMA_GENERATE):
        assert told(blocks) == told(read.blocks)
    assert all(one in told(blocks) for one in told(read.blocks))
    edits: list[Edit] = [drop, lambda block: [TextBlock("mark")], other_path, upper, lambda block: [block, TextBlock("more")]]
    for edit in edits:
        try:
            new, changed = edit_answer(operation, "application/json", body, edit)
        except UnreadableBody:
            continue
        again = offered(operation, new)
        assert again is not None
        if edit is drop:
            assert not again
            assert changed == len(blocks)
        if edit is upper:
            words = [block.text.upper() for block in blocks if isinstance(block, TextBlock)]
            assert "".join(words) == "".join(block.text for block in again if isinstance(block, TextBlock))


def told(blocks: Sequence[Block]) -> list[Any]:
    """What texts and calls say, however it is spaced."""
    texts = [block.text if isinstance(block, TextBlock) else "" for block in blocks]
    calls = [(block.call_id, block.name, value(block.arguments)) for block in blocks if isinstance(block, ToolCallBlock)]
    return [text for text in texts if text] + calls


def value(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


@pytest.mark.parametrize("operation", ANSWERED)
@pytest.mark.parametrize("body", UGLY, ids=range(len(UGLY)))
def test_ugly_bodies_raise_nothing_else(operation: Operation, body: bytes) -> None:
    if not body[:5].lstrip().startswith((b"data:", b"event", b":")):
        check(operation, body)


@pytest.mark.parametrize("operation", ANSWERED)
@settings(max_examples=80, deadline=None)
@given(value=SHAPES, calls=st.lists(SHAPES | VALUES, max_size=3))
def test_any_json_survives(operation: Operation, value: dict[str, Any], calls: list[Any]) -> None:
    check(operation, json.dumps(value).encode())
    message = {**value, "tool_calls": calls}
    check(operation, json.dumps({"choices": [{"message": message}, {"text": "x"}], "message": message}).encode())
    check(operation, json.dumps({"content": [value, *calls], "output": [value, *calls]}).encode())


@pytest.mark.parametrize("operation", ANSWERED)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_survive(operation: Operation, data: bytes) -> None:
    check(operation, b'{"content":[{"type":"text","text":"' + data + b'"}],"response":"' + data + b'"}')
