"""Every policy × dialect × whole or stream × enforce or shadow: what the client gets, and that verdicts say what happened.

The upstream answers with a text and a tool call, so that each kind of policy has something to look at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy_core.policies.registry import BUILT_IN, policy_class
from proxy_core.wire.dialects import Operation
from tests.conftest import StartGateway
from tests.fault_upstream import FaultUpstream
from tests.gateway.asking import CHAT, EVERY, MESSAGES, OLLAMA_CHAT, OLLAMA_GENERATE, RESPONSES, Asking
from tests.gateway_fixtures import RunningGateway
from tests.raw_http import RawResponse

JUDGE = {"upstream": "openai", "model": "gpt-4o-mini"}
TOOL_ASKING = {
    "chat": {"tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]},
    "responses": {"tools": [{"type": "function", "name": "get_weather", "parameters": {"type": "object"}}]},
    "messages": {"tools": [{"name": "get_weather", "input_schema": {"type": "object"}}]},
    "ollama_chat": {"tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]},
    "ollama_generate": {},
}


@dataclass(frozen=True)
class Case:
    """One policy, and what is to be seen of it."""

    use: str
    params: dict[str, Any] = field(default_factory=dict)
    action: str = "allow"
    """Its worst action where it can act."""
    reason: str | None = None
    """In one of its verdicts, where it can act."""
    ran: str = "ran"
    before: tuple[dict[str, Any], ...] = ()
    """Policies in front of it."""
    changes: bool = False
    """Whether the client gets something else than the upstream gave."""
    refuses: int | None = None
    """The status of its denial."""
    only: tuple[Asking, ...] | None = None
    """The operations on which it acts; None for all that it supports."""
    tools: bool = False
    """Whether the answers hold a tool call in place of text."""
    asked: tuple[Asking, ...] = tuple(EVERY)
    """The operations that are tried."""
    shadow_runs: bool = True
    """Whether it runs in shadow mode; what sends does not."""


CASES = [
    Case("send_backend_request", ran="none"),
    Case("request_logging", reason="request_logged"),
    Case("add_api_key", {"source": "config", "api_key": "sk-house-key-0123456789"}, "modify", "api_key_added"),
    Case("strip_secrets", {"literals": ["capital"]}, "modify", "secret_removed", only=(CHAT, MESSAGES, OLLAMA_CHAT)),
    Case("rephrase_request", {"append": " Be brief."}, "modify", "request_rephrased"),
    Case("rephrase_response", {"rules": [{"find": "Paris", "replace": "Lyon"}]}, "modify", "response_rephrased", changes=True),
    Case("backend_sampling", {"samples": 2}, reason="samples_taken", shadow_runs=False),
    Case(
        "rank_and_select_response",
        {"heuristic": "length"},
        reason="best_sample_chosen",
        before=({"use": "backend_sampling", "params": {"samples": 2}},),
    ),
    Case(
        "serial",
        {"policies": [{"use": "string_replacement", "params": {"replacements": [["Paris", "Lyon"]]}}, {"use": "noop"}]},
        "modify",
        "text_replaced",
        changes=True,
    ),
    Case(
        "branching",
        {
            "branches": [
                {
                    "if": {
                        "type": "not_equals",
                        "left": {"type": "transaction_path", "path": "request.payload.model"},
                        "right": {"type": "static", "value": "x"},
                    },
                    "then": {"use": "string_replacement", "params": {"replacements": [["Paris", "Lyon"]]}},
                }
            ]
        },
        "modify",
        "text_replaced",
        changes=True,
    ),
    Case("client_api_key_auth", {"keys": {"team": {"key": "sk-known"}}}, "deny", "client_key_missing", refuses=401),
    Case("add_api_key_header", {}, "deny", "api_key_missing", ran="error", refuses=400),
    Case(
        "add_api_key_header_from_env",
        {"api_key_env_var_name": "NOT_SET_ANYWHERE"},
        "deny",
        "api_key_missing",
        ran="error",
        refuses=400,
    ),
    Case("set_backend", {"upstream": "openai"}, "route", "backend_set", asked=(CHAT, RESPONSES)),
    Case(
        "model_name_replacement",
        {"model_mapping": {"gpt-4o-mini": "gpt-5"}},
        "modify",
        "model_renamed",
        changes=True,
        only=(CHAT, RESPONSES),
    ),
    Case(
        "leaked_api_key_detection",
        {"patterns": ["capital"]},
        "deny",
        "secret_leaked",
        refuses=403,
        only=(CHAT, MESSAGES, OLLAMA_CHAT),
    ),
    Case("backend_call", {"backend_call_spec": {"model": "other"}}, changes=True, shadow_runs=False),
    Case("noop"),
    Case("string_replacement", {"replacements": [["Paris", "Lyon"]]}, "modify", "text_replaced", changes=True),
    Case("tool_allow_deny", {"deny": ["get_*"]}, "deny", "tool_not_allowed", changes=True, tools=True),
    Case("tool_call_judge", JUDGE, "deny", "judge_unreadable", ran="error", changes=True, tools=True),
    Case("simple_llm", {**JUDGE, "instructions": "Be kind."}, "deny", "judge_unreadable", ran="error", refuses=400),
    Case("block_dangerous_commands", tools=True),
    Case("block_sensitive_file_writes", tools=True),
    Case("block_web_requests", tools=True),
    Case("hold_for_approval", {"timeout_s": 1, "on_timeout": "approve"}, reason="hold_expired", tools=True),
]


def combinations() -> Iterator[Any]:
    for case in CASES:
        for mode in ("enforce", "shadow"):
            yield pytest.param(case, mode, id=f"{case.use}-{mode}")


def test_every_policy_is_in_the_matrix() -> None:
    assert [case.use for case in CASES] == list(BUILT_IN)


@pytest.mark.parametrize(("case", "mode"), combinations())
async def test_what_the_client_gets_and_what_the_verdicts_say(
    start_gateway: StartGateway, upstream: FaultUpstream, case: Case, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    plain = await start_gateway()
    gateway = await start_gateway(policies=[*case.before, {"use": case.use, "mode": mode, "params": case.params}])
    await asyncio.gather(
        *(check(plain, gateway, case, mode, asking, stream=stream) for asking in case.asked for stream in (False, True))
    )


async def check(plain: RunningGateway, gateway: RunningGateway, case: Case, mode: str, asking: Asking, *, stream: bool) -> None:
    operations = policy_class(case.use).operations
    where = f"{asking.name} {'stream' if stream else 'whole'}"
    body = asking.bytes(stream=stream, **(TOOL_ASKING[asking.name] if case.tools else {}))
    given = await gateway.ask("POST", asking.path, body, asking.headers)
    untouched = await plain.ask("POST", asking.path, body, asking.headers)
    transaction_id = given.header("x-luthien-transaction-id")
    assert transaction_id, where
    detail = await gateway.plane.detail(transaction_id)
    assert detail is not None, where
    mine = [one for one in detail.verdicts if one.policy.partition("/")[0] == case.use]
    supported = operations is None or Operation(asking.name) in operations
    acts = supported and (case.only is None or asking in case.only) and not _without_tools(case, asking)

    if case.ran == "none":
        assert mine == [], where
    else:
        assert mine, where
        assert {one.mode for one in mine} == {mode}, where
    if not supported:
        assert "unsupported" in {one.ran for one in mine}, where
    if mode == "shadow" or not acts or not (case.changes or case.refuses):
        assert _same(given, untouched), where
        if not case.before:
            assert detail.row.verdict in ("allow", "modify", "route") if acts else True, where
    if mode == "shadow":
        assert detail.row.verdict == "allow" or case.before, where
        if not case.shadow_runs:
            assert {one.ran for one in mine} == {"skipped"}, where
    if acts and case.ran != "none" and (mode == "enforce" or case.shadow_runs):
        assert case.action in {one.action for one in mine} or case.action == "allow", (where, mine)
        if case.reason is not None and not (mode == "shadow" and case.use == "hold_for_approval"):
            assert case.reason in {one.reason for one in mine}, (where, mine)
        if case.ran == "error":
            assert "error" in {one.ran for one in mine}, (where, mine)
            assert all(one.score is None for one in mine), where
    if mode == "enforce" and acts:
        if case.refuses is not None:
            assert given.status == case.refuses, where
            assert detail.row.verdict == "deny", where
        elif case.changes:
            assert given.status == 200, where
            assert given.body != untouched.body, where


def _same(given: RawResponse, untouched: RawResponse) -> bool:
    return (given.status, given.body) == (untouched.status, untouched.body)


def _without_tools(case: Case, asking: Asking) -> bool:
    """A policy of tool calls has nothing to do where the API has none."""
    return asking is OLLAMA_GENERATE and case.use in ("tool_allow_deny", "tool_call_judge", "hold_for_approval")
