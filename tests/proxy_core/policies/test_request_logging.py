"""One line of JSON for each request, without a credential and without a way out of its line."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

import pytest

from proxy_core.policies.request_logging import MAX_LINE_CHARS, RequestLoggingParams, RequestLoggingPolicy
from proxy_core.policies.testing import Outcome, answer_body, answer_stream, context_for, request_body, run_request, run_response
from proxy_core.wire.dialects import Operation

KEY = "sk-proj-" + "aB3" * 20
HEADERS = ((b"authorization", b"Bearer opaque-credential-1"), (b"x-trace", KEY.encode()), (b"accept", b"*/*"))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "proxy_core.policies.request_logging")
    return caplog


def policy(**params: object) -> RequestLoggingPolicy:
    return RequestLoggingPolicy(RequestLoggingParams.model_validate(params))


def lines(log: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in log.records if record.name.endswith("request_logging")]


async def asked(text: str = "hello", **params: object) -> Outcome:
    return await run_request(policy(**params), context_for(text=text, headers=HEADERS))


async def test_a_request_is_written_down_before_it_is_sent(log: pytest.LogCaptureFixture) -> None:
    outcome = await asked()
    [line] = lines(log)
    assert line == {
        "event": "request",
        "transaction_id": "t-1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "operation": "chat",
        "model": "m-1",
        "stream": False,
        "upstream": "openai",
        "reason": "default",
        "session_id": "",
        "agent": "",
        "key": "",
    }
    assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", "request_logged")
    assert outcome.body == request_body(Operation.CHAT, "hello")


async def test_and_its_answer_when_it_is_over(log: pytest.LogCaptureFixture) -> None:
    assert (await run_request(policy(when="end"), context_for())).verdict.ran == "skipped"
    outcome = await run_response(policy(when="end", body="digest"), text="hi", status=201)
    [line] = lines(log)
    assert (line["event"], line["status"], line["body_bytes"]) == ("answer", 201, len(outcome.body))
    assert line["body_sha256"] == hashlib.sha256(answer_body(Operation.CHAT, "hi")).hexdigest()


async def test_a_stream_passes_untouched_and_is_written_down_at_its_end(log: pytest.LogCaptureFixture) -> None:
    outcome = await run_response(policy(when="both"), context_for(stream=True), pieces=["a", "b"], stream=True)
    assert outcome.body == answer_stream(Operation.CHAT, ["a", "b"])
    assert [line["status"] for line in lines(log)] == [200]
    assert outcome.verdict.reason == "request_logged"


async def test_no_credential_is_in_the_line(log: pytest.LogCaptureFixture) -> None:
    await asked(f"my key is {KEY}", headers=True, body="preview", preview_chars=1000)
    text = log.records[-1].getMessage()
    assert "aB3" not in text
    assert "opaque-credential" not in text
    assert ["accept", "*/*"] in lines(log)[0]["headers"]
    assert "my key is [redacted]" in lines(log)[0]["body"]


async def test_a_key_that_a_preview_would_cut_is_not_shown_in_part(log: pytest.LogCaptureFixture) -> None:
    await asked("-----BEGIN PRIVATE KEY-----" + "MIIE" * 1_500 + "-----END PRIVATE KEY-----", body="preview", preview_chars=100)
    assert "MIIE" not in log.records[-1].getMessage()


async def test_nothing_leaves_its_line(log: pytest.LogCaptureFixture) -> None:
    await asked("a\nb\r\x1b[2J\u202e\u2028", body="preview")
    text = log.records[-1].getMessage()
    assert text.isprintable()
    assert text.isascii()


async def test_a_line_is_never_cut_in_the_middle(log: pytest.LogCaptureFixture) -> None:
    headers = [(b"x-%d" % number, b"\xff" * 300) for number in range(100)]
    context = context_for(text="\x00" * 2_000, headers=headers)
    await run_request(policy(headers=True, body="preview", preview_chars=1000), context)
    assert len(log.records[-1].getMessage()) <= MAX_LINE_CHARS
    assert lines(log)[0]["headers"] == "(too long)"


async def test_levels_hold(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "proxy_core.policies.request_logging")
    await asked(level="DEBUG")
    assert lines(caplog) == []
    await asked(level="WARNING")
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_in_shadow_mode_nothing_is_written(log: pytest.LogCaptureFixture) -> None:
    outcome = await run_request(policy(), context_for(), mode="shadow")
    assert lines(log) == []
    assert (outcome.verdict.mode, outcome.verdict.reason) == ("shadow", "request_logged")


async def test_bodies_that_cannot_be_read_are_written_down_too(log: pytest.LogCaptureFixture) -> None:
    for operation, body in ((Operation.CHAT, b"\xff\x00{"), (Operation.OTHER, b"\xff" * 100), (Operation.MODELS, b"")):
        outcome = await run_request(policy(body="preview"), context_for(operation, body))
        assert outcome.body == body
    assert [line["model"] for line in lines(log)] == [None, None, None]
