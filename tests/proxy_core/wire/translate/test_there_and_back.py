"""What both dialects can say survives the way there and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_core.wire.dialects import Operation
from proxy_core.wire.translate import translate_request, translate_response
from tests.proxy_core.wire.translate.test_answers import ANSWERS, CHAT_ANSWER, TID
from tests.proxy_core.wire.translate.test_requests import CHAT, MESSAGES, OLLAMA, PAIRS, PNG, SCHEMA, WEATHER

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
ARGUMENTS = st.dictionaries(TEXTS, st.recursive(st.none() | st.booleans() | NUMBERS | TEXTS, st.lists, max_leaves=5), max_size=3)
UNIT = st.floats(0, 1)


@st.composite
def exchanges(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A question, perhaps some calls with their results, and an answer: in Chat Completions, as luthien writes it."""
    text: Any = draw(TEXTS)
    if draw(st.booleans()):
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
        text = [{"type": "text", "text": text}, image]
    messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
    names = draw(st.lists(NAMES, max_size=3))
    if names:
        said = draw(st.none() | TEXTS)
        calls = [
            {"id": draw(NAMES) + f"_{number}", "type": "function",
             "function": {"name": name, "arguments": json.dumps(draw(ARGUMENTS), ensure_ascii=False)}}
            for number, name in enumerate(names)
        ]  # fmt: skip
        messages.append({"role": "assistant", "content": said, "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": draw(TEXTS)} for call in calls]
    messages.append({"role": "assistant", "content": draw(TEXTS)})
    return messages


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    messages = [message for exchange in draw(st.lists(exchanges(), max_size=2)) for message in exchange]
    system = draw(st.none() | TEXTS)
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    fields: dict[str, Any] = {
        "model": draw(NAMES),
        "messages": [*messages, {"role": "user", "content": draw(TEXTS)}],
        "max_completion_tokens": draw(st.integers(1, 100_000)),
    }
    optional: dict[str, st.SearchStrategy[Any]] = {
        "temperature": UNIT,
        "top_p": UNIT,
        "stop": st.lists(TEXTS, min_size=1, max_size=4),
        "stream": st.just(True),
        "tools": st.lists(tools(), min_size=1, max_size=2),
        "response_format": st.just({"type": "json_schema", "json_schema": {"name": "structured_output", "schema": SCHEMA}}),
    }
    for name in draw(st.sets(st.sampled_from(sorted(optional)))):
        fields[name] = draw(optional[name])
    if "stream" in fields:
        fields["stream_options"] = {"include_usage": True}
    return fields


@st.composite
def tools(draw: st.DrawFn) -> dict[str, Any]:
    return {"type": "function", "function": {"name": draw(NAMES), "description": draw(TEXTS), "parameters": SCHEMA}}


def there_and_back(source: Operation, over: Operation, fields: dict[str, Any]) -> dict[str, Any]:
    there = translate_request(source, over, json.dumps(fields).encode())
    back = translate_request(over, source, there.body)
    assert (there.lost, back.lost) == ((), ())
    return json.loads(back.body)  # type: ignore[no-any-return]


def opened(fields: dict[str, Any]) -> dict[str, Any]:
    """The request with the values of its arguments, and with an empty text where Ollama has no other word for none."""
    for message in fields["messages"]:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return fields


@settings(max_examples=100, deadline=None)
@given(requests(), st.sampled_from([MESSAGES, OLLAMA]))
def test_requests(fields: dict[str, Any], over: Operation) -> None:
    assert opened(there_and_back(CHAT, over, fields)) == opened(fields)


@pytest.mark.parametrize(("source", "over"), PAIRS)
def test_a_long_conversation(source: Operation, over: Operation) -> None:
    fields = json.loads(json.dumps(WEATHER[source]).replace('"arguments": ""', '"arguments": "{}"'))
    again = there_and_back(source, over, fields)
    assert (opened(again) if source is CHAT else again) == (opened(fields) if source is CHAT else fields)


@settings(max_examples=100, deadline=None)
@given(TEXTS, TEXTS, st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3), st.integers(0, 2**40), st.integers(0, 2**40))
def test_answers(text: str, thought: str, calls: list[tuple[str, Any]], prompt: int, completion: int) -> None:
    made = [
        {"id": f"call_{TID}_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "reasoning_content": thought}
    if made:
        message["tool_calls"] = made
    fields = {
        **CHAT_ANSWER,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls" if made else "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }
    for over in (MESSAGES, OLLAMA):
        body = translate_response(CHAT, over, 200, json.dumps(fields).encode(), transaction_id=TID)
        again = json.loads(translate_response(over, CHAT, 200, body, transaction_id=TID))
        for one in (again, expected := json.loads(json.dumps(fields))):
            opened({"messages": [one["choices"][0]["message"]]})
            del one["created"]
            if over is OLLAMA:
                del one["id"]
        assert again == expected


def test_a_signed_thought_survives_a_client_of_chat_completions() -> None:
    """Without its thinking, the model would refuse to go on after its own calls."""
    fields = ANSWERS[MESSAGES]
    answer = json.loads(translate_response(MESSAGES, CHAT, 200, json.dumps(fields).encode(), transaction_id=TID))
    results = [{"role": "tool", "tool_call_id": call_id, "content": "done"} for call_id in ("call_a", "call_b")]
    request = {"model": "m", "messages": [answer["choices"][0]["message"], *results], "reasoning_effort": "low"}
    again = translate_request(CHAT, MESSAGES, json.dumps(request).encode())
    assert again.lost == ()
    assert json.loads(again.body)["messages"][0]["content"] == fields["content"]
    assert json.loads(again.body)["thinking"]["type"] == "enabled"
