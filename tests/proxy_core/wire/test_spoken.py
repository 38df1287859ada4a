"""What a model is given to read is found wherever it stands."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from typing import Any

import pytest

from proxy_core.wire.dialects import Operation
from proxy_core.wire.spoken import spoken

WORD = "Zanzibar-7"
LONG = "a word " * 60 + WORD
PICTURE = b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4).decode()


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def document(data: str) -> dict[str, Any]:
    return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": data}}


def in_base64(text: str) -> str:
    return "data:text/plain;base64," + b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.MESSAGES, user(document(LONG))),
        (Operation.MESSAGES, user(document(b64encode(LONG.encode()).decode()))),
        (Operation.MESSAGES, user({"type": "tool_result", "tool_use_id": "c", "content": [document(LONG)]})),
        (Operation.MESSAGES, {"messages": [{"role": "assistant", "content": [
            {"type": "tool_use", "id": "c", "name": "write", "input": {"data": LONG}}]}]}),
        (Operation.MESSAGES, user({"type": "text", "text": "hi", "citations": [{"cited_text": WORD}]})),
        (Operation.CHAT, user({"type": "file", "file": {"filename": "a.txt", "file_data": in_base64(LONG)}})),
        (Operation.CHAT, user({"type": "file", "file": {"file_data": "data:text/plain,Zanzibar%2D7"}})),
        (Operation.RESPONSES, {"input": [{"role": "user", "content": [
            {"type": "input_file", "filename": "a.txt", "file_data": in_base64(WORD)}]}]}),
        (Operation.CHAT, {"messages": [{"role": "user", "name": WORD, "content": "hi"}]}),
        (Operation.CHAT, {"messages": [{"role": "assistant", "content": "", "reasoning_details": [{"text": WORD}]}]}),
        (Operation.CHAT, {**user({"type": "text", "text": "hi"}), "prediction": {"type": "content", "content": WORD}}),
        (Operation.RESPONSES, {"input": "hi", "prompt": {"id": "p", "variables": {"place": WORD}}}),
        (Operation.COMPLETIONS, {"prompt": "a", "suffix": WORD}),
        (Operation.OLLAMA_GENERATE, {"prompt": "a", "suffix": WORD}),
        (Operation.OLLAMA_GENERATE, {"prompt": "a", "template": WORD}),
        (Operation.OLLAMA_CHAT, {"messages": [{"role": "assistant", "content": "", "tool_calls": [
            {"function": {"name": "write", "arguments": {"data": LONG}}}]}]}),
        (Operation.OTHER, {"requests": [{"data": urlsafe_b64encode(("¿¿¿" + LONG).encode()).decode()}]}),
    ],
)  # fmt: skip
def test_it_is_found(operation: Operation, body: dict[str, Any]) -> None:
    said = spoken(operation, json.dumps(body).encode())
    assert said.texts is not None
    assert any(WORD in text for text in said.texts)


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.CHAT, '{"messages": [{"role": "user", "content": "hi"}], "messages": [{"role": "user", "content": "no"}]}'),
        (Operation.CHAT, '{"messages": [{"role": "user", "content": "hi", "content": "no"}]}'),
        (Operation.MESSAGES, '{"system": "hi", "system": "no", "messages": []}'),
        (Operation.MESSAGES, '{"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "text": "no"}]}]}'),
        (Operation.RESPONSES, '{"input": "hi", "input": "no"}'),
        (Operation.CHAT, '{"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": '
                         '{"name": "f", "arguments": "{\\"a\\": \\"hi\\", \\"a\\": \\"no\\"}"}}]}]}'),
    ],
)  # fmt: skip
def test_what_stands_twice_counts_twice(operation: Operation, body: str) -> None:
    for hidden in ("hi", "no"):
        said = spoken(operation, body.replace(hidden, WORD).encode())
        assert any(WORD in text for text in said.texts or ()), hidden


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.COMPLETIONS, {"prompt": [1, 2]}),
        (Operation.COMPLETIONS, {"prompt": [[1, 2], [3]]}),
        (Operation.EMBEDDINGS, {"input": [[1, 2]]}),
        (Operation.OLLAMA_GENERATE, {"prompt": "go on", "context": [1, 2]}),
    ],
)
def test_nobody_can_tell_what_token_numbers_say(operation: Operation, body: dict[str, Any]) -> None:
    assert spoken(operation, json.dumps(body).encode()).texts is None


def test_pictures_are_no_text() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}}
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    for operation, part in ((Operation.MESSAGES, image), (Operation.CHAT, url)):
        said = spoken(operation, json.dumps(user(part)).encode())
        assert said.texts is not None
        assert max(map(len, said.texts)) < 64
