"""Whole streams changed block by block, and streams made of answers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import (
    Answer,
    AnswerError,
    Block,
    OpaqueBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    Usage,
)
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing import UnreadableBody, edit_answer
from proxy_core.wire.stream_editing import edit_stream, stream_of
from proxy_core.wire.validator import check_stream
from tests.proxy_core.wire.rich_streams import MESSAGES_TOOLS, OLLAMA_TOOLS, STREAMS
from tests.proxy_core.wire.sdk_reading import read_with_sdk

NAMES = sorted(STREAMS)
WITH_TOOLS = ("chat tools", "messages tools", "responses tools", "ollama tools")


def answer_of(operation: Operation, body: bytes) -> Answer:
    codec = codec_for(operation)
    assert codec is not None
    decoder = codec.stream_decoder()
    decoder.feed(body)
    return decoder.finish()


def said(answer: Answer) -> tuple[str, list[tuple[str, object]]]:
    calls = [(call.name, msgspec.json.decode(call.arguments or "{}")) for call in answer.tool_calls]
    return answer.text, calls


@pytest.mark.parametrize("name", NAMES)
def test_an_edit_that_changes_nothing_gives_the_same_bytes(name: str) -> None:
    operation, body = STREAMS[name]
    assert edit_stream(operation, body, lambda block: None) == (body, 0)
    out, changed = edit_stream(operation, body, lambda block: [block])
    assert out is body and changed == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_block_is_offered_whole_and_once(name: str) -> None:
    operation, body = STREAMS[name]
    offered: list[Block] = []
    edit_stream(operation, body, lambda block: offered.append(block))  # type: ignore[func-returns-value]
    answer = answer_of(operation, body)
    assert sorted(block.text for block in offered if isinstance(block, TextBlock)) == sorted(
        block.text for block in answer.blocks if isinstance(block, TextBlock)
    )
    assert [(b.call_id, b.name, b.arguments) for b in offered if isinstance(b, ToolCallBlock)] == [
        (b.call_id, b.name, b.arguments) for b in answer.tool_calls
    ]


def test_thinking_is_offered_with_its_signature() -> None:
    offered: list[Block] = []
    edit_stream(Operation.MESSAGES, MESSAGES_TOOLS, lambda block: offered.append(block))  # type: ignore[func-returns-value]
    assert offered[0] == ThinkingBlock("hm, so", "c2ln+/=")


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_texts_in_place_of_a_call_stand_before_the_calls_that_remain(name: str) -> None:
    operation, body = STREAMS[name]

    def block(one: Block) -> list[Block] | None:
        return [TextBlock("[blocked]")] if isinstance(one, ToolCallBlock) and one.name == "read" else None

    out, changed = edit_stream(operation, body, block)
    assert changed == 1
    assert check_stream(operation, out, strict=True) == []
    read, before = read_with_sdk(operation, out), read_with_sdk(operation, body)
    assert read.calls == before.calls[:1] and read.stop == before.stop
    assert read.text.endswith("[blocked]")
    if operation is Operation.MESSAGES:
        assert out.index(b"[blocked]") < out.index(b"toolu_a")


@pytest.mark.parametrize("name", [*WITH_TOOLS, "messages server tool", "chat legacy call"])
def test_changed_calls_keep_their_ids(name: str) -> None:
    operation, body = STREAMS[name]

    def change(one: Block) -> list[Block] | None:
        return [ToolCallBlock(one.call_id, "x_" + one.name, '{"e": 1}')] if isinstance(one, ToolCallBlock) else None

    out, changed = edit_stream(operation, body, change)
    before, after = answer_of(operation, body), answer_of(operation, out)
    assert changed == len(before.tool_calls)
    assert [call.call_id for call in after.tool_calls] == [call.call_id for call in before.tool_calls]
    assert [call.name for call in after.tool_calls] == ["x_" + call.name for call in before.tool_calls]
    assert all(msgspec.json.decode(call.arguments) == {"e": 1} for call in after.tool_calls)
    assert check_stream(operation, out, strict=True) == []


@pytest.mark.parametrize("name", WITH_TOOLS)
def test_calls_can_be_added_renamed_and_removed_at_once(name: str) -> None:
    operation, body = STREAMS[name]

    def change(one: Block) -> list[Block] | None:
        if isinstance(one, TextBlock):
            return [TextBlock(one.text.upper()), TextBlock("more")]
        if isinstance(one, ThinkingBlock):
            return []
        if isinstance(one, ToolCallBlock) and one.name == "bash":
            return [one, ToolCallBlock("", "made", '{"n": 1}')]
        return [] if isinstance(one, ToolCallBlock) else None

    out, _ = edit_stream(operation, body, change)
    assert check_stream(operation, out, strict=True) == []
    read = read_with_sdk(operation, out)
    assert [call[1] for call in read.calls] == ["bash", "made"]
    assert all(call[0] or operation is Operation.OLLAMA_CHAT for call in read.calls)
    assert "LET ME LOOK" in read.text and "more" in read.text


@pytest.mark.parametrize("name", NAMES)
def test_everything_can_be_removed(name: str) -> None:
    operation, body = STREAMS[name]
    out, changed = edit_stream(operation, body, lambda block: [])
    assert changed
    assert check_stream(operation, out, strict=True) == []
    assert said(answer_of(operation, out)) == ("", [])


def test_what_cannot_be_said_is_refused() -> None:
    with pytest.raises(UnreadableBody):
        edit_stream(Operation.MESSAGES, MESSAGES_TOOLS, lambda b: [ThinkingBlock("x")] if isinstance(b, ThinkingBlock) else None)
    with pytest.raises(UnreadableBody):
        edit_stream(Operation.MESSAGES, MESSAGES_TOOLS, lambda b: [OpaqueBlock("x", b"{}")] if isinstance(b, TextBlock) else None)
    with pytest.raises(UnreadableBody):
        edit_stream(
            Operation.OLLAMA_CHAT, OLLAMA_TOOLS, lambda b: [ToolCallBlock("", "n", "[")] if isinstance(b, TextBlock) else None
        )
    with pytest.raises(ZeroDivisionError):
        edit_stream(Operation.OLLAMA_CHAT, OLLAMA_TOOLS, lambda b: [] if 1 // 0 else None)
    assert edit_stream(Operation.EMBEDDINGS, b"{}", lambda b: []) == (b"{}", 0)


def test_a_last_line_without_its_end_is_read() -> None:
    out, changed = edit_stream(Operation.OLLAMA_CHAT, OLLAMA_TOOLS[:-1], lambda b: [] if isinstance(b, TextBlock) else None)
    assert changed == 1
    assert answer_of(Operation.OLLAMA_CHAT, out).complete


def test_whole_answers_that_are_streams_are_edited_here() -> None:
    def shout(block: Block) -> list[Block] | None:
        return [TextBlock(block.text.upper())] if isinstance(block, TextBlock) else None

    for name in NAMES:
        operation, body = STREAMS[name]
        out, _ = edit_answer(operation, "text/event-stream", body, shout)
        assert answer_of(operation, out).text == answer_of(operation, body).text.upper()


# --- made of answers ---


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("chat two choices", "messages server tool")])
def test_a_stream_of_an_answer_says_the_answer(name: str) -> None:
    operation, body = STREAMS[name]
    answer = answer_of(operation, body)
    out = stream_of(operation, answer, transaction_id="t1", created=1700000000, with_usage=True)
    assert check_stream(operation, out, strict=True) == []
    again = answer_of(operation, out)
    if "other calls" in name:
        assert (again.text, len(again.tool_calls)) == (answer.text, 2)
    else:
        assert said(again) == said(answer)
    assert (again.model, again.usage) == (answer.model, answer.usage) or operation is Operation.COMPLETIONS
    if "legacy" not in name:
        assert again.stop_reason == answer.stop_reason
    assert [b.signature for b in again.blocks if isinstance(b, ThinkingBlock) and operation is Operation.MESSAGES] == [
        b.signature for b in answer.blocks if isinstance(b, ThinkingBlock) and operation is Operation.MESSAGES
    ]
    if operation in (Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES):
        assert again.response_id == answer.response_id
    read_with_sdk(operation, out)


TEXTS = st.text(max_size=12)
CALLS = st.builds(
    lambda name, value: ToolCallBlock("", name, msgspec.json.encode({"v": value}).decode()),
    st.sampled_from(["bash", "read"]),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=8),
)


@settings(max_examples=80, deadline=None)
@given(
    operation=st.sampled_from([Operation.CHAT, Operation.RESPONSES, Operation.MESSAGES, Operation.OLLAMA_CHAT]),
    texts=st.lists(TEXTS.map(TextBlock), max_size=3),
    calls=st.lists(CALLS, max_size=3),
    usage=st.none() | st.just(Usage(5, 6)),
)
def test_any_answer_makes_a_legal_stream(
    operation: Operation, texts: list[Block], calls: list[Block], usage: Usage | None
) -> None:
    blocks = [*texts, *(msgspec.structs.replace(call, call_id=f"call_{at}") for at, call in enumerate(calls))]  # type: ignore[type-var]
    out = stream_of(operation, Answer(tuple(blocks), usage), transaction_id="t1")
    assert check_stream(operation, out, strict=True) == []
    read = read_with_sdk(operation, out)
    assert [call[1] for call in read.calls] == [call.name for call in calls]  # type: ignore[union-attr]
    assert read.text == "".join(text.text for text in texts).encode("utf-8", "replace").decode()  # type: ignore[union-attr]


def test_an_answer_that_is_an_error_ends_with_it() -> None:
    for operation in (Operation.CHAT, Operation.RESPONSES, Operation.MESSAGES, Operation.OLLAMA_CHAT):
        out = stream_of(operation, Answer(error=AnswerError("overloaded_error", "busy")), transaction_id="t1")
        assert answer_of(operation, out).error is not None
        assert check_stream(operation, out) == []
    with pytest.raises(UnreadableBody):
        stream_of(Operation.EMBEDDINGS, Answer(), transaction_id="t1")
