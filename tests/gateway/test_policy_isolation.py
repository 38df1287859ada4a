"""A policy may raise, hang, give back junk or grow: its `on_error` decides, and the next request is none the worse."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy_core.policies.chain import worst
from tests.conftest import StartGateway
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, MESSAGES, Asking, error_message, name_of
from tests.gateway_fixtures import RunningGateway

FOLDER = str(Path(__file__).parent / "naughty")
WAYS = ["raise", "exit", "hang", "hang_on", "junk", "huge", "cancel"]
SLOWLY = Fault(interval_s=0.02).header()
"""Events that come one by one, so that the first are on their way before the policy fails."""
REASONS = {
    "raise": "policy_error",
    "exit": "policy_error",
    "cancel": "policy_error",
    "hang": "policy_timeout",
    "hang_on": "policy_timeout",
    "junk": "policy_junk",
    "huge": "policy_oversized",
}


async def gateway_with(start_gateway: StartGateway, *, how: str, at: str, on_error: str, mode: str = "enforce") -> RunningGateway:
    policies: list[dict[str, Any]] = [
        {"use": "bystander"},
        {"use": "naughty", "mode": mode, "on_error": on_error, "deadline_s": 0.1, "params": {"how": how, "at": at}},
        {"use": "bystander", "name": "after"},
    ]
    return await start_gateway(policies=policies, policy_paths=[FOLDER])


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("at", ["request", "response"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_fault_denies_where_the_policy_is_set_to_deny(
    start_gateway: StartGateway, upstream: FaultUpstream, how: str, at: str, stream: bool
) -> None:
    gateway = await gateway_with(start_gateway, how=how, at=at, on_error="deny")
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=stream), {**CHAT.headers, **SLOWLY})

    if stream and at == "response":
        assert response.status == 200
        assert b'"content_filter"' in response.body
        assert response.body.endswith(CHAT.terminator)
    else:
        assert response.status == 400
        assert response.header("x-should-retry") == "false"
        assert "could not decide" in error_message(response, "openai")
    detail = await gateway.detail()
    verdict = next(one for one in detail.verdicts if one.policy == "naughty" and one.action == "deny")
    expected = "policy_junk" if how == "huge" and stream and at == "response" else REASONS[how]
    assert verdict.reason == expected
    assert verdict.score is None
    assert detail.row.verdict == "deny"
    assert detail.row.outcome == "refused"
    assert (len(upstream.exchanges) == 0) == (at == "request")


@pytest.mark.parametrize("how", [way for way in WAYS if way != "hang_on"])
@pytest.mark.parametrize("at", ["request", "response"])
@pytest.mark.parametrize("asking", [CHAT, MESSAGES], ids=name_of)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_fault_changes_nothing_where_the_policy_is_set_to_allow(
    start_gateway: StartGateway, asking: Asking, how: str, at: str, stream: bool
) -> None:
    gateway = await gateway_with(start_gateway, how=how, at=at, on_error="allow")
    plain = await start_gateway()
    response = await gateway.ask("POST", asking.path, asking.bytes(stream=stream), {**asking.headers, **SLOWLY})
    untouched = await plain.ask("POST", asking.path, asking.bytes(stream=stream), asking.headers)

    assert (response.status, response.body) == (200, untouched.body)
    detail = await gateway.detail()
    assert [one.ran for one in detail.verdicts if one.policy == "naughty" and one.ran == "error"] == ["error"]
    assert all(one.ran == "ran" for one in detail.verdicts if one.policy != "naughty")
    assert detail.row.outcome == "ok"
    assert worst(detail.verdicts) == detail.row.verdict == "allow"


@pytest.mark.parametrize("how", [*WAYS, "deny"])
@pytest.mark.parametrize("at", ["request", "response"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_in_shadow_mode_nothing_of_it_reaches_the_client(
    start_gateway: StartGateway, how: str, at: str, stream: bool
) -> None:
    gateway = await gateway_with(start_gateway, how=how, at=at, on_error="deny", mode="shadow")
    plain = await start_gateway()
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=stream), CHAT.headers)
    untouched = await plain.ask("POST", CHAT.path, CHAT.bytes(stream=stream), CHAT.headers)

    assert (response.status, response.body) == (200, untouched.body)
    assert (await gateway.row()).verdict == "allow"


async def test_what_a_failing_policy_left_half_done_is_undone(start_gateway: StartGateway, upstream: FaultUpstream) -> None:
    gateway = await gateway_with(start_gateway, how="half", at="request", on_error="allow")
    body = CHAT.bytes()
    response = await gateway.ask("POST", CHAT.path, body, CHAT.headers)

    assert response.status == 200
    assert upstream.last.body == body
    assert upstream.last.header("content-type") == "application/json"


async def test_a_denial_in_the_middle_of_a_stream_ends_it_legally(start_gateway: StartGateway) -> None:
    gateway = await gateway_with(start_gateway, how="deny", at="response", on_error="deny")
    response = await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(stream=True), {**MESSAGES.headers, **SLOWLY})

    assert response.status == 200
    assert b"not today" in response.body
    assert b'"refusal"' in response.body
    assert MESSAGES.terminator in response.body
    detail = await gateway.detail()
    assert detail.upstream_body is not None and b"message_start" in detail.upstream_body


async def test_a_denial_before_the_first_event_is_a_plain_error(start_gateway: StartGateway) -> None:
    gateway = await gateway_with(start_gateway, how="deny", at="response", on_error="deny")
    response = await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(stream=True), MESSAGES.headers)

    assert response.status == 400
    assert error_message(response, "anthropic") == "not today"


EXPRESSION = "(?:a|aa)+b"
"""Takes for ever over a row of a's."""


@pytest.mark.parametrize(
    "policy",
    [
        {"use": "strip_secrets", "params": {"patterns": [EXPRESSION]}},
        {"use": "leaked_api_key_detection", "params": {"patterns": [EXPRESSION]}},
        {"use": "rephrase_request", "params": {"rules": [{"find": EXPRESSION, "replace": "c", "regex": True}]}},
        {
            "use": "branching",
            "params": {
                "branches": [
                    {
                        "if": {"type": "regex_match", "left": {"path": "request.last_user_text"}, "right": EXPRESSION},
                        "then": {"use": "noop"},
                    }
                ]
            },
        },
    ],
    ids=lambda one: str(one["use"]),
)
async def test_an_expression_that_takes_for_ever_is_a_fault_and_stops_nobody_else(
    start_gateway: StartGateway, policy: dict[str, Any]
) -> None:
    gateway = await start_gateway(policies=[{**policy, "on_error": "deny"}])
    loop = asyncio.get_running_loop()
    body = CHAT.bytes(messages=[{"role": "user", "content": "a" * 5_000}])
    started = loop.time()
    stuck = asyncio.ensure_future(gateway.ask("POST", CHAT.path, body, CHAT.headers))
    assert (await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)).status == 200
    assert (await stuck).status == 400
    assert loop.time() - started < 3
    detail = await gateway.plane.detail(next(row.transaction_id for row in await gateway.rows() if row.status == 400))
    assert detail is not None
    assert [(one.ran, one.reason) for one in detail.verdicts if one.ran == "error"] == [("error", "policy_timeout")]
