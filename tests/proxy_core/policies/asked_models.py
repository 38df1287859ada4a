"""Answers of models that policies ask."""

from __future__ import annotations

from proxy_core.policies.testing import answer_body
from proxy_core.transaction import WholeResponse
from proxy_core.wire.codec import codec_for
from proxy_core.wire.dialects import Operation

JSON_TYPE = [(b"content-type", b"application/json")]


def says(text: str, operation: Operation = Operation.CHAT, *, cost_usd: float | None = 0.001) -> WholeResponse:
    """A whole answer that says `text`."""
    return answered(answer_body(operation, text), operation, cost_usd=cost_usd)


def answered(
    body: bytes, operation: Operation = Operation.CHAT, *, status: int = 200, cost_usd: float | None = 0.001
) -> WholeResponse:
    codec = codec_for(operation)
    answer = codec.read_response(body) if codec is not None else None
    return WholeResponse(
        status=status, headers=list(JSON_TYPE), body=body, upstream="openai", answer=answer, cost_usd=cost_usd, ms=12.0
    )


def refuses(status: int) -> WholeResponse:
    return answered(b'{"error": {"message": "no", "type": "x"}}', status=status)
