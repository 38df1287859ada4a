"""A second opinion: another gateway's golden translations, where the environment names a file of them.

LUTHIEN_TRANSLATION_GOLDEN is a JSONL file, plain or gzipped, of rows {input_format, target, name, input, expected}. Compared is
what a translation means; where we differ on purpose, the test says why.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Block, Conversation, ToolCallBlock, ToolResultBlock
from proxy_core.wire.dialects import Operation
from proxy_core.wire.translate import StreamTranslator, translate_request, translate_response
from tests.proxy_core.wire.translate.test_requests import CHAT, MESSAGES

_FILE = os.environ.get("LUTHIEN_TRANSLATION_GOLDEN", "")
pytestmark = pytest.mark.skipif(not _FILE, reason="LUTHIEN_TRANSLATION_GOLDEN names no file")

REQUESTS = {("completions", "anthropic"): (CHAT, MESSAGES), ("messages", "completions"): (MESSAGES, CHAT)}
ANSWERS = {("completions", "completions-messages"): (CHAT, MESSAGES), ("anthropic", "messages-completions"): (MESSAGES, CHAT)}
STREAMS = {("anthropic", "messages-completions-streaming"): (MESSAGES, CHAT)}


def rows(kinds: dict[tuple[str, str], tuple[Operation, Operation]]) -> list[Any]:
    if not _FILE:
        return []
    data = Path(_FILE).read_bytes()
    text = gzip.decompress(data) if _FILE.endswith(".gz") else data
    found = [json.loads(line) for line in text.splitlines()]
    return [
        pytest.param(*kinds[key], row["input"].encode(), row["expected"], id=f"{row['target']}-{row['name']}")
        for row in found
        if (key := (row["input_format"], row["target"])) in kinds
    ]


def block_meaning(block: Block) -> Any:
    if isinstance(block, ToolCallBlock):
        return block.call_id, block.name, json.loads(block.arguments or "{}")
    if isinstance(block, ToolResultBlock):
        return block.call_id, block.content, block.is_error
    return type(block).__name__, getattr(block, "text", "")


def meaning(conversation: Conversation) -> Any:
    """Who said what: where they give each result a message of its own, we put those of one turn together."""
    merged: list[Any] = []
    for message in conversation.messages:
        blocks = [block_meaning(block) for block in message.blocks]
        if merged and merged[-1][0] == message.role:
            merged[-1][1] += blocks
        else:
            merged.append([message.role, blocks])
    return conversation.model, merged, [(tool.name, json.loads(tool.parameters)) for tool in conversation.tools]


@pytest.mark.parametrize(("source", "target", "body", "expected"), rows(REQUESTS))
def test_requests(source: Operation, target: Operation, body: bytes, expected: str) -> None:
    got = translate_request(source, target, body).body
    wanted = json.loads(expected)["request"]
    codec = codec_for(target)
    assert codec is not None
    assert meaning(codec.read_request(got)) == meaning(codec.read_request(json.dumps(wanted).encode()))
    fields = json.loads(got)
    if "thinking" in fields:
        assert fields.pop("max_tokens") >= wanted.pop("max_tokens")  # we leave room for the answer beside the thinking
    if wanted.get("reasoning_effort") == "none":
        del wanted["reasoning_effort"]  # a habit of one model that only its upstream can know
    wanted.pop("stream", None)
    for name in ("model", "messages", "tools"):
        fields.pop(name, None)
        wanted.pop(name, None)
    assert fields == wanted


@pytest.mark.parametrize(("source", "target", "body", "expected"), rows(ANSWERS))
def test_answers(source: Operation, target: Operation, body: bytes, expected: str) -> None:
    codec = codec_for(target)
    assert codec is not None
    got = codec.read_response(translate_response(source, target, 200, body, transaction_id="t"))
    wanted = codec.read_response(json.dumps(json.loads(expected)["response"]).encode())
    assert (got.text, got.stop_reason, got.model) == (wanted.text, wanted.stop_reason, wanted.model)
    assert [(call.call_id, call.name, json.loads(call.arguments)) for call in got.tool_calls] == [
        (call.call_id, call.name, json.loads(call.arguments)) for call in wanted.tool_calls
    ]
    assert got.usage is not None
    assert wanted.usage is not None
    assert (got.usage.output_tokens, got.usage.cached_input_tokens) == (
        wanted.usage.output_tokens, wanted.usage.cached_input_tokens,
    )  # fmt: skip


@pytest.mark.parametrize(("source", "target", "body", "expected"), rows(STREAMS))
def test_streams(source: Operation, target: Operation, body: bytes, expected: str) -> None:
    translator = StreamTranslator(source, target, transaction_id="t")
    codec = codec_for(target)
    assert codec is not None
    ours, theirs = codec.stream_decoder(), codec.stream_decoder()
    ours.feed(translator.feed(body) + translator.finish())
    theirs.feed(expected[: expected.index("[DONE]") + 8].encode())
    got, wanted = ours.finish(), theirs.finish()
    assert (got.text, got.stop_reason, got.model, got.response_id, got.complete) == (
        wanted.text, wanted.stop_reason, wanted.model, wanted.response_id, wanted.complete,
    )  # fmt: skip
    assert [(call.call_id, call.name, call.arguments) for call in got.tool_calls] == [
        (call.call_id, call.name, call.arguments) for call in wanted.tool_calls
    ]
    assert got.usage is not None
    assert wanted.usage is not None
    assert (got.usage.input_tokens, got.usage.output_tokens) == (wanted.usage.input_tokens, wanted.usage.output_tokens)
