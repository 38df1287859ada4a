"""A refusal is an answer that each provider's own SDK reads."""

from __future__ import annotations

import json

import anthropic.types
import ollama
import openai.types
import openai.types.chat
import openai.types.responses
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.ids import new_ulid
from proxy_core.wire.codec import codec_for
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing import UnreadableBody
from proxy_core.wire.refusal import CAN_REFUSE, refusal_body

TEXT = "Not allowed: the request names a customer. Ask “Ana”."
AT_S = 1_764_000_000
ULID = new_ulid(AT_S * 1000)


def refused(operation: Operation, text: str = TEXT) -> bytes:
    return refusal_body(operation, model="m-1", text=text, transaction_id=ULID)


def test_the_openai_sdk_reads_a_refused_chat() -> None:
    completion = openai.types.chat.ChatCompletion.model_validate_json(refused(Operation.CHAT), strict=True)
    (choice,) = completion.choices
    assert (choice.message.content, choice.finish_reason) == (TEXT, "content_filter")
    assert (completion.created, completion.model) == (AT_S, "m-1")
    assert completion.usage is not None
    assert completion.usage.total_tokens == 0


def test_the_openai_sdk_reads_a_refused_completion() -> None:
    completion = openai.types.Completion.model_validate_json(refused(Operation.COMPLETIONS), strict=True)
    (choice,) = completion.choices
    assert (choice.text, choice.finish_reason) == (TEXT, "content_filter")


def test_the_openai_sdk_reads_a_refused_response() -> None:
    response = openai.types.responses.Response.model_validate_json(refused(Operation.RESPONSES), strict=True)
    (item,) = response.output
    assert item.type == "message"
    (part,) = item.content
    assert part.type == "refusal"
    assert (part.refusal, response.status) == (TEXT, "completed")


def test_the_anthropic_sdk_reads_a_refused_message() -> None:
    message = anthropic.types.Message.model_validate_json(refused(Operation.MESSAGES), strict=True)
    (block,) = message.content
    assert block.type == "text"
    assert (block.text, message.stop_reason) == (TEXT, "refusal")
    assert message.usage.output_tokens == 0


def test_the_ollama_sdk_reads_refused_answers() -> None:
    chat = ollama.ChatResponse.model_validate_json(refused(Operation.OLLAMA_CHAT))
    assert (chat.message.content, chat.done, chat.done_reason) == (TEXT, True, "stop")
    assert chat.created_at == "2025-11-24T16:00:00Z"
    generated = ollama.GenerateResponse.model_validate_json(refused(Operation.OLLAMA_GENERATE))
    assert (generated.response, generated.done) == (TEXT, True)


@pytest.mark.parametrize("operation", sorted(CAN_REFUSE, key=str))
def test_a_refusal_reads_as_a_complete_answer(operation: Operation) -> None:
    codec = codec_for(operation)
    assert codec is not None
    answer = codec.read_response(refused(operation))
    assert answer.complete
    assert answer.problem is None
    assert answer.error is None
    assert refused(operation) == refused(operation)


@pytest.mark.parametrize("operation", sorted(set(Operation) - CAN_REFUSE, key=str))
def test_what_holds_no_text_cannot_refuse(operation: Operation) -> None:
    with pytest.raises(UnreadableBody):
        refused(operation)


@given(text=st.text(st.characters(), max_size=20), name=st.text(st.characters(), max_size=30), model=st.text(st.characters()))
def test_any_words_make_json(text: str, name: str, model: str) -> None:
    for operation in CAN_REFUSE:
        body = json.loads(refusal_body(operation, model=model, text=text, transaction_id=name))
        assert body["model"] == model.encode("utf-8", "replace").decode()


def test_a_refusal_is_never_empty() -> None:
    message = json.loads(refused(Operation.MESSAGES, ""))
    assert message["content"][0]["text"] == "The request was refused."
