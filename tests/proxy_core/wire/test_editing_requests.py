"""Every text of a request is offered once, in order; what changes is that text alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing import (
    TextPart,
    UnreadableBody,
    append_system_text,
    edit_request_texts,
    last_user_text,
    set_field,
    set_model,
)
from tests.proxy_core.wire.test_codecs_survive import SHAPES, UGLY

READ = [operation for operation in Operation if operation not in (Operation.MODELS, Operation.OTHER)]

CHAT = b"""{"model" : "gpt-4o-mini", "temperature": 1.0, "messages": [
 {"role": "system", "content": "Be brief."},
 {"role": "user", "content": [{"type": "text", "text": "What is this?"},
   {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
 {"role": "assistant", "content": null, "reasoning_content": "look it up", "tool_calls": [
   {"id": "call_1", "type": "function", "function": {"name": "search", "arguments": "{\\"q\\": \\"cat\\"}"}},
   {"id": "call_2", "type": "custom", "custom": {"name": "sql", "input": "select 1"}}]},
 {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "a cat"}]},
 {"role": "user", "content": "Thanks", "name": "ana"},
 {"role": "assistant", "refusal": "I cannot", "function_call": {"name": "old", "arguments": "{}"}}
], "tools": [{"type": "function", "function": {"name": "search", "description": "Searches"}}], "seed": 1e3}"""

MESSAGES = b"""{"model":"claude-sonnet-4-5","max_tokens":64,
"system":[{"type":"text","text":"You are an agent.","cache_control":{"type":"ephemeral"}}],
"messages":[
 {"role":"user","content":"List the files"},
 {"role":"assistant","content":[
  {"type":"thinking","thinking":"ls it is","signature":"c2ln"},
  {"type":"redacted_thinking","data":"ZW5j"},
  {"type":"text","text":"I will look."},
  {"type":"tool_use","id":"toolu_1","name":"Bash","input":{"command": "ls", "n": 1.50}}]},
 {"role":"user","content":[
  {"type":"tool_result","tool_use_id":"toolu_1","content":[
    {"type":"text","text":"a.txt"},
    {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},
    {"type":"document","title":"Notes","source":{"type":"text","media_type":"text/plain","data":"secret notes"}}]},
  {"type":"tool_result","tool_use_id":"toolu_2","content":"plain","is_error":true},
  {"type":"text","text":"And now?"},
  {"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"UERG"},"context":"a report"}]},
 {"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_3","content":"late"}]}],
"tools":[{"name":"Bash","input_schema":{"type":"object"}}],"stream":true}"""

RESPONSES = b"""{"model":"gpt-5","instructions":"Be quick.","input":[
 {"role":"user","content":"hi"},
 {"role":"user","content":[{"type":"input_text","text":"count"},{"type":"input_image","image_url":"data:image/png;base64,AA"}]},
 {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hidden"}],"encrypted_content":"Zm9v"},
 {"type":"reasoning","id":"rs_2","summary":[{"type":"summary_text","text":"open"}]},
 {"type":"function_call","call_id":"c1","name":"f","arguments":"{\\"a\\":1}"},
 {"type":"function_call_output","call_id":"c1","output":"one"},
 {"type":"local_shell_call","call_id":"c2","action":{"type":"exec","command":["ls"]}},
 {"type":"shell_call_output","call_id":"c3","output":[{"stdout":"out","stderr":"err","outcome":{"type":"exit","exit_code":0}}]},
 {"type":"mcp_call","name":"m","arguments":"{}","output":"found"},
 {"type":"item_reference","id":"msg_9"}],
"tools":[{"type":"function","name":"f","parameters":{}}],"store":false}"""

OLLAMA = b"""{"model":"qwen3","messages":[
 {"role":"user","content":"look","images":["AAAA"]},
 {"role":"assistant","content":"","thinking":"hm","tool_calls":[{"function":{"name":"f","arguments":{"a": 1}}}]},
 {"role":"tool","tool_name":"f","content":"ok"}],"options":{"temperature":0.0}}"""


def texts(operation: Operation, body: bytes) -> list[tuple[str, str, str]]:
    parts: list[TextPart] = []
    assert edit_request_texts(operation, body, parts.append) == (body, 0)
    return [(part.role, part.kind, part.text) for part in parts]


def test_the_texts_of_a_chat() -> None:
    assert texts(Operation.CHAT, CHAT) == [
        ("system", "text", "Be brief."),
        ("user", "text", "What is this?"),
        ("assistant", "thinking", "look it up"),
        ("assistant", "tool_arguments", '{"q": "cat"}'),
        ("assistant", "tool_arguments", "select 1"),
        ("tool", "tool_result", "a cat"),
        ("user", "text", "Thanks"),
        ("assistant", "text", "I cannot"),
        ("assistant", "tool_arguments", "{}"),
    ]


def test_the_texts_of_messages_leave_signed_thinking_out() -> None:
    assert texts(Operation.MESSAGES, MESSAGES) == texts(Operation.COUNT_TOKENS, MESSAGES)
    assert texts(Operation.MESSAGES, MESSAGES) == [
        ("system", "text", "You are an agent."),
        ("user", "text", "List the files"),
        ("assistant", "text", "I will look."),
        ("assistant", "tool_arguments", '{"command": "ls", "n": 1.50}'),
        ("user", "tool_result", "a.txt"),
        ("user", "tool_result", "Notes"),
        ("user", "tool_result", "secret notes"),
        ("user", "tool_result", "plain"),
        ("user", "text", "And now?"),
        ("user", "text", "a report"),
        ("user", "tool_result", "late"),
    ]


def test_the_texts_of_responses_leave_encrypted_reasoning_out() -> None:
    assert texts(Operation.RESPONSES, RESPONSES) == [
        ("system", "text", "Be quick."),
        ("user", "text", "hi"),
        ("user", "text", "count"),
        ("assistant", "thinking", "open"),
        ("assistant", "tool_arguments", '{"a":1}'),
        ("tool", "tool_result", "one"),
        ("assistant", "tool_arguments", '{"type":"exec","command":["ls"]}'),
        ("tool", "tool_result", "out"),
        ("tool", "tool_result", "err"),
        ("assistant", "tool_arguments", "{}"),
        ("assistant", "tool_result", "found"),
    ]
    stored = b'{"prompt":{"id":"pmpt_1","variables":{"city":"Oslo","note":{"type":"input_text","text":"cold"}}},"input":"go"}'
    assert texts(Operation.RESPONSES, stored) == [("user", "text", "Oslo"), ("user", "text", "cold"), ("user", "text", "go")]


def test_the_texts_of_ollama() -> None:
    assert texts(Operation.OLLAMA_CHAT, OLLAMA) == [
        ("user", "text", "look"),
        ("assistant", "thinking", "hm"),
        ("assistant", "tool_arguments", '{"a": 1}'),
        ("tool", "tool_result", "ok"),
    ]
    generate = b'{"model":"o","system":"Be dry.","prompt":"Rain?","suffix":"!","context":[1,2]}'
    assert texts(Operation.OLLAMA_GENERATE, generate) == [
        ("system", "text", "Be dry."),
        ("user", "text", "Rain?"),
        ("user", "text", "!"),
    ]


@pytest.mark.parametrize("operation", [Operation.EMBEDDINGS, Operation.OLLAMA_EMBED])
def test_the_texts_to_embed(operation: Operation) -> None:
    assert texts(operation, b'{"input":"one"}') == [("user", "text", "one")]
    assert texts(operation, b'{"input":["one",{"text":"two"},""]}') == [("user", "text", "one"), ("user", "text", "two")]
    assert texts(operation, b'{"input":[[1,2],[3]]}') == []


def test_prompts_of_completions() -> None:
    assert texts(Operation.COMPLETIONS, b'{"prompt":["a","b"],"suffix":"c"}') == [
        ("user", "text", "a"),
        ("user", "text", "b"),
        ("user", "text", "c"),
    ]
    assert texts(Operation.COMPLETIONS, b'{"prompt":[1,2,3]}') == []


def test_operations_that_nobody_reads_offer_nothing() -> None:
    assert texts(Operation.OTHER, b"\x00 a file") == []


def test_one_text_changes_and_the_rest_keeps_its_bytes() -> None:
    def louder(part: TextPart) -> str | None:
        return "a dog" if part.kind == "tool_result" else None

    body, changed = edit_request_texts(Operation.CHAT, CHAT, louder)
    assert changed == 1
    expected = json.loads(CHAT)
    expected["messages"][3]["content"][0]["text"] = "a dog"
    assert json.loads(body) == expected
    for kept in (
        b'"temperature":1.0', b'"seed":1e3', b'{"role": "system", "content": "Be brief."}',
        b'"tools":[{"type": "function", "function": {"name": "search", "description": "Searches"}}]',
        b'{"id": "call_1", "type": "function", "function": {"name": "search", "arguments": "{\\"q\\": \\"cat\\"}"}}',
    ):  # fmt: skip
        assert kept in body


def test_arguments_that_are_objects_stay_objects() -> None:
    def safer(part: TextPart) -> str | None:
        return ' {"command": "pwd", "n": 2.50} ' if part.kind == "tool_arguments" else None

    body, changed = edit_request_texts(Operation.MESSAGES, MESSAGES, safer)
    assert changed == 1
    assert b'"input":{"command": "pwd", "n": 2.50}}' in body
    body, changed = edit_request_texts(Operation.CHAT, CHAT, safer)
    assert changed == 3
    assert json.loads(body)["messages"][2]["tool_calls"][0]["function"]["arguments"] == ' {"command": "pwd", "n": 2.50} '


@pytest.mark.parametrize("arguments", ["", "nothing", "[1]", "{", '{"a":NaN}', '"text"', '{"a":"\ud800"}'])
@pytest.mark.parametrize(("operation", "body"), [(Operation.MESSAGES, MESSAGES), (Operation.OLLAMA_CHAT, OLLAMA)])
def test_arguments_that_are_no_object_are_refused(operation: Operation, body: bytes, arguments: str) -> None:
    with pytest.raises(UnreadableBody):
        edit_request_texts(operation, body, lambda part: arguments if part.kind == "tool_arguments" else None)


def test_what_an_edit_raises_comes_through() -> None:
    class Refused(ValueError):
        pass

    def refuse(part: TextPart) -> str | None:
        raise Refused(part.text)

    with pytest.raises(Refused):
        edit_request_texts(Operation.CHAT, CHAT, refuse)


@pytest.mark.parametrize(
    ("operation", "body", "text"),
    [
        (Operation.CHAT, CHAT, "Thanks"),
        (Operation.MESSAGES, MESSAGES, "And now?\n\na report"),
        (Operation.RESPONSES, RESPONSES, "count"),
        (Operation.RESPONSES, b'{"input":"hi"}', "hi"),
        (Operation.OLLAMA_CHAT, OLLAMA, "look"),
        (Operation.OLLAMA_GENERATE, b'{"prompt":"Rain?","system":"s"}', "Rain?"),
        (Operation.COMPLETIONS, b'{"prompt":["a","b"]}', "b"),
        (Operation.CHAT, b'{"messages":[]}', ""),
        (Operation.MESSAGES, b'{"messages":[{"role":"assistant","content":"x"}]}', ""),
    ],
)
def test_what_the_user_wrote_last(operation: Operation, body: bytes, text: str) -> None:
    assert last_user_text(operation, body) == text


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages":[{"role":"user","content":"nice"}],"messages":[{"role":"user","content":"evil"}]}',
        b'{"messages":[{"role":"user","content":"evil","content":"nice"}]}',
        b'{"messages":[{"role":"user","content":"evil","\\u0063ontent":"nice"}]}',
        b'{"messages":[{"role":"user","content":"same","content":"same"}]}',
        b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "evil", "text": "nice"}]}]}',
        b'{"messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":"{}","name":"f","arguments":"{ }"}}]}]}',
        b'{"messages":[{"role":"user","Content":"evil"}]}',
        b'{"Messages":[{"role":"user","content":"evil"}]}',
        b'{"me\xc5\xbf\xc5\xbfages":[{"role":"user","content":"evil"}]}',
    ],
)
def test_bodies_that_two_readers_read_differently_are_refused(body: bytes) -> None:
    for operation in (Operation.CHAT, Operation.MESSAGES, Operation.OLLAMA_CHAT):
        with pytest.raises(UnreadableBody):
            edit_request_texts(operation, body, lambda _: None)


@pytest.mark.parametrize(
    "body",
    [b'{"messages":"text"}', b'{"messages":{"0":{}}}', b'{"messages":["text"]}', b'{"messages":[null]}', b"[]", b"7", b""],
)
def test_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableBody):
        edit_request_texts(Operation.CHAT, body, lambda _: None)


def test_deep_content_is_refused_and_not_followed() -> None:
    content: Any = "x"
    for _ in range(30):
        content = [{"type": "tool_result", "content": content}]
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    with pytest.raises(UnreadableBody):
        edit_request_texts(Operation.MESSAGES, body, lambda _: None)


def test_a_text_that_no_json_carries_is_refused() -> None:
    with pytest.raises(UnreadableBody):
        edit_request_texts(Operation.CHAT, CHAT, lambda _: "\ud800")


# --- fields, model, system prompt ---


def test_the_model_is_set_and_other_fields_keep_their_bytes() -> None:
    body = b'{"model" : "a", "n": 1.0,"x":{"b": 1}}'
    assert set_model(Operation.CHAT, body, "b") == b'{"model":"b","n":1.0,"x":{"b": 1}}'
    assert set_field(body, "stream", True) == b'{"model":"a","n":1.0,"x":{"b": 1},"stream":true}'
    assert set_model(Operation.CHAT, body, "a") is body


@pytest.mark.parametrize(
    "body", [b'{"model":"a","model":"b"}', b'{"Model":"a"}', b'{"model":"a","MODEL":"b"}', b"[]", b"", b'{"model":"\\ud800"}']
)
def test_a_model_that_could_be_read_otherwise_is_not_set(body: bytes) -> None:
    with pytest.raises(UnreadableBody):
        set_model(Operation.OLLAMA_CHAT, body, "c")


@pytest.mark.parametrize(
    ("operation", "before", "after"),
    [
        (Operation.CHAT, {"messages": [{"role": "user"}]}, {"messages": [{"role": "system", "content": "S"}, {"role": "user"}]}),
        (
            Operation.CHAT,
            {"messages": [{"role": "developer", "content": "D"}]},
            {"messages": [{"role": "developer", "content": "D\n\nS"}]},
        ),
        (
            Operation.OLLAMA_CHAT,
            {"messages": [{"role": "system", "content": [{"type": "text", "text": "D"}]}]},
            {"messages": [{"role": "system", "content": [{"type": "text", "text": "D"}, {"type": "text", "text": "S"}]}]},
        ),
        (Operation.MESSAGES, {"messages": []}, {"messages": [], "system": "S"}),
        (Operation.MESSAGES, {"system": "D"}, {"system": "D\n\nS"}),
        (Operation.COUNT_TOKENS, {"system": []}, {"system": [{"type": "text", "text": "S"}]}),
        (Operation.RESPONSES, {"instructions": None}, {"instructions": "S"}),
        (Operation.RESPONSES, {"instructions": "D"}, {"instructions": "D\n\nS"}),
        (Operation.OLLAMA_GENERATE, {"system": ""}, {"system": "S"}),
    ],
)
def test_a_paragraph_joins_the_system_prompt(operation: Operation, before: Any, after: Any) -> None:
    assert json.loads(append_system_text(operation, json.dumps(before).encode(), "S")) == after


def test_where_there_is_no_system_prompt_nothing_joins_it() -> None:
    with pytest.raises(UnreadableBody):
        append_system_text(Operation.EMBEDDINGS, b'{"input":"a"}', "S")
    with pytest.raises(UnreadableBody):
        append_system_text(Operation.MESSAGES, b'{"system":7}', "S")


# --- for all bodies ---


@pytest.mark.parametrize("operation", READ)
@pytest.mark.parametrize("body", UGLY, ids=range(len(UGLY)))
def test_ugly_bodies_raise_nothing_else(operation: Operation, body: bytes) -> None:
    check(operation, body)


@pytest.mark.parametrize("operation", READ)
@settings(max_examples=60, deadline=None)
@given(value=SHAPES)
@example(value={"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "content", "content": []}}]}]})
def test_any_json_survives(operation: Operation, value: Any) -> None:
    check(operation, json.dumps(value).encode())
    check(operation, json.dumps({"messages": [value], "input": [value], "system": value}, separators=(",", ":")).encode())


@pytest.mark.parametrize("operation", READ)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=60))
def test_any_bytes_survive(operation: Operation, data: bytes) -> None:
    check(operation, data)
    check(operation, b'{"messages":[{"role":"user","content":"' + data + b'"}]}')


def check(operation: Operation, body: bytes) -> None:
    """Leaving every text gives the very body; changing any one gives the same but for that text."""
    parts: list[TextPart] = []
    try:
        left, none = edit_request_texts(operation, body, parts.append)
    except UnreadableBody:
        return
    assert left is body
    assert none == 0
    for number, part in enumerate(parts[:8]):
        seen: list[TextPart] = []

        def mark(other: TextPart, number: int = number, seen: list[TextPart] = seen) -> str | None:
            seen.append(other)
            return ('{"m":1}' if other.kind == "tool_arguments" else "mark") if len(seen) == number + 1 else None

        try:
            body_now, changed = edit_request_texts(operation, body, mark)
        except UnreadableBody:
            assert part.kind == "tool_arguments"
            continue
        assert changed == (part.text not in ("mark", '{"m":1}'))
        now: list[TextPart] = []
        edit_request_texts(operation, body_now, now.append)
        assert [one.text for one in now[:number]] == [one.text for one in parts[:number]]
        assert [one.text for one in now[number + 1 :]] == [one.text for one in parts[number + 1 :]]
        assert len(differences(json.loads(body), json.loads(body_now))) == changed


def differences(before: Any, after: Any) -> list[Any]:
    """What is new in a JSON value, each changed leaf or marked object once."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys() and after != {"m": 1}:
        return [found for key in before for found in differences(before[key], after[key])]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [found for one, other in zip(before, after, strict=True) for found in differences(one, other)]
    assert after in ("mark", {"m": 1}, '{"m":1}')
    return [after]


@settings(max_examples=200, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.sampled_from(["a", "b", "ab", 'q"', "é", "\\"]), st.sampled_from(["1", '"x"', "[1, 2]", "{}", " 7 "]))
    ),
    space=st.sampled_from(["", " ", "\n\t"]),
)
def test_twice_the_same_key_never_goes_unseen(pairs: list[tuple[str, str]], space: str) -> None:
    members = [f"{space}{json.dumps(key, ensure_ascii=len(key) > 1)}{space}:{space}{value}{space}" for key, value in pairs]
    body = ("{" + ",".join(members) + "}").encode()
    if len({key for key, _ in pairs}) == len(pairs):
        assert json.loads(set_field(body, "new", 1)) == {**json.loads(body), "new": 1}
    else:
        with pytest.raises(UnreadableBody):
            set_field(body, "new", 1)
