"""Our own errors are legal in each dialect, whatever their message holds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.wire.codec import codec_for
from proxy_core.wire.dialects import Dialect, Operation
from proxy_core.wire.errors import error_body, stream_error

WORDS = {
    "openai_type": "upstream_error",
    "openai_code": "upstream_timeout",
    "anthropic_type": "timeout_error",
    "transaction_id": "tx-1",
}
OPERATIONS = {
    Operation.CHAT: Dialect.OPENAI,
    Operation.RESPONSES: Dialect.OPENAI,
    Operation.MESSAGES: Dialect.ANTHROPIC,
    Operation.OLLAMA_CHAT: Dialect.OLLAMA,
}


def test_bodies_have_the_shape_of_their_dialect() -> None:
    assert json.loads(error_body(Dialect.OPENAI, message="too slow", **WORDS)) == {
        "error": {"message": "too slow", "type": "upstream_error", "param": None, "code": "upstream_timeout"}
    }
    assert json.loads(error_body(Dialect.ANTHROPIC, message="too slow", **WORDS)) == {
        "type": "error",
        "error": {"type": "timeout_error", "message": "too slow"},
        "request_id": "tx-1",
    }
    assert json.loads(error_body(Dialect.OLLAMA, message="too slow", **WORDS)) == {"error": "too slow"}


@pytest.mark.parametrize(("operation", "dialect"), OPERATIONS.items())
@given(message=st.text(alphabet=st.characters(), min_size=1, max_size=40))
def test_a_stream_error_is_one_event_that_its_codec_reads(operation: Operation, dialect: Dialect, message: str) -> None:
    event = stream_error(dialect, operation, message=message, sequence_number=0, **WORDS)
    codec = codec_for(operation)
    assert codec is not None
    decoder = codec.stream_decoder()
    assert len(decoder.feed(event)) == 1
    error = decoder.finish().error
    assert error is not None
    assert error.message == message.encode("utf-8", "replace").decode()


def test_a_responses_error_carries_its_sequence_number() -> None:
    event = stream_error(Dialect.OPENAI, Operation.RESPONSES, message="gone", sequence_number=9, **WORDS)
    assert event.startswith(b"event: error\ndata: ")
    assert json.loads(event.split(b"data: ")[1]) == {
        "type": "error",
        "code": "upstream_timeout",
        "message": "gone",
        "param": None,
        "sequence_number": 9,
    }
