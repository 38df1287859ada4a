"""Kinds of errors, by body and by status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy_core.interceptors.event_errors import fault_of, type_of_status


def body(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@pytest.mark.parametrize(
    ("dialect", "status", "answer", "kind", "message"),
    [
        (
            "openai",
            401,
            {"error": {"message": "Incorrect API key", "type": "invalid_request_error", "code": "invalid_api_key"}},
            "invalid_api_key",
            "Incorrect API key",
        ),
        (
            "openai",
            400,
            {"error": {"message": "no", "type": "invalid_request_error", "code": None}},
            "invalid_request_error",
            "no",
        ),
        ("openai", 500, {"error": "Something broke"}, "server_error", "Something broke"),
        ("openai", 500, "Something broke", "server_error", "Something broke"),
        ("openai", 500, b"plain text", "server_error", "plain text"),
        ("openai", 503, b"", "service_unavailable", "HTTP 503"),
        ("openai", 418, b"<html>teapot</html>", "http_418", "HTTP 418"),
        ("openai", 200, {"error": {"message": "late", "type": "server_error"}}, "server_error", "late"),
        (
            "anthropic",
            200,
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "overloaded_error",
            None,
        ),
        (
            "anthropic",
            529,
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "overloaded_error",
            None,
        ),
        (
            "anthropic",
            429,
            {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}},
            "rate_limit_error",
            "slow",
        ),
        ("anthropic", 529, b"", "overloaded_error", "HTTP 529"),
        ("anthropic", 500, {"error": {"message": "no type"}}, "api_error", "no type"),
        ("anthropic", 500, "Something went wrong", "api_error", "Something went wrong"),
        ("ollama", 404, {"error": "model 'x' not found"}, "not_found", "model 'x' not found"),
    ],
)
def test_an_error_says_its_kind(dialect: str, status: int, answer: Any, kind: str, message: str | None) -> None:
    fault = fault_of(dialect, status, body(answer))
    assert fault is not None
    assert fault.type == kind
    if message is not None:
        assert fault.message == message


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "ollama"])
@pytest.mark.parametrize(
    "answer", [b"", b"null", {}, {"error": None}, {"error": {}}, {"type": "message", "content": []}, [], b"hello"]
)
def test_an_answer_of_200_without_an_error_is_none(dialect: str, answer: Any) -> None:
    assert fault_of(dialect, 200, body(answer)) is None


@pytest.mark.parametrize(
    ("dialect", "words"),
    [
        (
            "openai",
            {
                400: "bad_request",
                401: "authentication_error",
                403: "permission_denied",
                404: "not_found",
                429: "rate_limit_error",
                500: "server_error",
                502: "bad_gateway",
                503: "service_unavailable",
                529: "http_529",
            },
        ),
        (
            "anthropic",
            {
                400: "invalid_request_error",
                401: "authentication_error",
                403: "permission_error",
                404: "not_found_error",
                429: "rate_limit_error",
                500: "api_error",
                529: "overloaded_error",
                502: "http_502",
            },
        ),
    ],
)
def test_a_status_alone_has_a_word(dialect: str, words: dict[int, str]) -> None:
    assert {status: type_of_status(dialect, status) for status in words} == words
