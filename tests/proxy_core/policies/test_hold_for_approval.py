"""HoldForApproval: what it puts before the operator, and what each decision makes of the traffic."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from proxy_core.policies.base import Release
from proxy_core.policies.hold_for_approval import HoldForApproval, HoldForApprovalParams
from proxy_core.policies.testing import FakeServices, answer_body, answer_stream, context_for, run_request, run_response
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import HoldOutcome, TransactionContext
from proxy_core.verdicts import Stage, Verdict
from proxy_core.wire.dialects import Operation

APPROVED = HoldOutcome(decision="approve", reason=Reason.APPROVED, who="ada")
DENIED = HoldOutcome(decision="deny", reason=Reason.DENIED_BY_OPERATOR, message="Ask the owner first.", who="ada")
EXPIRED = HoldOutcome(decision="deny", reason=Reason.HOLD_EXPIRED, message="nobody decided in time")
SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}}


def edited(text: str) -> HoldOutcome:
    return HoldOutcome(decision="edit", reason=Reason.APPROVED_EDITED, edited=text, who="ada")


def policy(**params: Any) -> HoldForApproval:
    return HoldForApproval(HoldForApprovalParams(**params))


def with_tools(*outcomes: HoldOutcome, text: str = "Clean up") -> tuple[TransactionContext, FakeServices]:
    services = FakeServices(holds=outcomes)
    body = {
        "model": "gpt-5",
        "messages": [{"role": "user", "content": text}],
        "tools": [{"type": "function", "function": {"name": "bash", "parameters": SCHEMA}}],
    }
    return context_for(Operation.CHAT, json.dumps(body).encode(), services=services), services


def calling(*calls: tuple[str, str, str]) -> bytes:
    """An answer with tool calls, each of id, name and arguments."""
    made = [{"id": one, "type": "function", "function": {"name": name, "arguments": arguments}} for one, name, arguments in calls]
    message = {"role": "assistant", "content": None, "tool_calls": made}
    return json.dumps(
        {"id": "c-1", "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    ).encode()


RM = ("call_1", "bash", '{"command": "rm -rf /srv/builds"}')
LS = ("call_2", "bash", '{"command": "ls"}')


# --- tool calls ---


async def test_a_tool_call_is_shown_exactly_and_approved_untouched() -> None:
    context, services = with_tools(APPROVED)
    body = calling(RM)
    outcome = await run_response(policy(timeout_s=90), context, body=body)
    (held,) = services.held
    assert held["content"] == RM[2]
    assert (held["stage"], held["tool"], held["call_id"]) == (Stage.TOOL_CALL, "bash", "call_1")
    assert json.loads(held["tool_schema"]) == SCHEMA
    assert (held["timeout_s"], held["on_timeout"]) == (90, "deny")
    assert "every tool call is held" in held["why"]
    assert outcome.body == body
    verdict = outcome.verdict
    assert (verdict.action, verdict.reason, verdict.stage) == ("allow", Reason.APPROVED, Stage.TOOL_CALL)
    assert verdict.detail["decided_by"] == "ada"
    assert verdict.detail["tool"] == "bash"


async def test_edited_arguments_take_the_place_of_the_models() -> None:
    context, _ = with_tools(edited('{"command": "ls /srv/builds"}'))
    outcome = await run_response(policy(filter='args:"rm -rf"'), context, body=calling(RM, LS))
    assert outcome.answer is not None
    assert [(one.call_id, one.name, one.arguments) for one in outcome.answer.tool_calls] == [
        ("call_1", "bash", '{"command": "ls /srv/builds"}'),
        LS,
    ]
    assert outcome.answer.stop_reason == "tool_calls"
    assert (outcome.verdict.action, outcome.verdict.reason) == ("modify", Reason.APPROVED_EDITED)


async def test_a_denied_call_leaves_the_operators_words() -> None:
    context, _ = with_tools(DENIED)
    outcome = await run_response(policy(), context, body=calling(RM))
    assert outcome.answer is not None
    assert outcome.answer.tool_calls == ()
    assert outcome.text == "[Tool call `bash` was denied by an operator: Ask the owner first.]"
    assert (outcome.verdict.action, outcome.verdict.reason) == ("deny", Reason.DENIED_BY_OPERATOR)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (Reason.HOLD_EXPIRED, "not approved in time"),
        (Reason.HOLD_CAP_REACHED, "too much waits"),
        (Reason.HOLD_SHUTDOWN, "before luthien stopped"),
    ],
)
async def test_where_nobody_decided_the_agent_reads_why(reason: Reason, words: str) -> None:
    context, _ = with_tools(HoldOutcome(decision="deny", reason=reason, message="-"))
    outcome = await run_response(policy(message="Ask in #ops."), context, body=calling(RM))
    assert words in outcome.text
    assert "Ask in #ops." in outcome.text
    assert outcome.verdict.reason is reason


async def test_only_what_the_filter_means_is_held() -> None:
    context, services = with_tools(DENIED)
    outcome = await run_response(policy(filter="tool:bash args:rm"), context, body=calling(LS, RM))
    assert [held["call_id"] for held in services.held] == ["call_1"]
    assert outcome.answer is not None
    assert [one.call_id for one in outcome.answer.tool_calls] == ["call_2"]
    assert outcome.answer.stop_reason == "tool_calls"


async def test_by_another_policys_verdict() -> None:
    rule = policy(filter="policy:block_dangerous_commands verdict:flag")
    flag = Verdict(
        policy="block_dangerous_commands",
        stage=Stage.TOOL_CALL,
        mode="enforce",
        action="flag",
        reason=Reason.DANGEROUS_COMMAND,
        message="rm -rf with an absolute path",
        score=0.82,
        detail={"call_id": "call_1"},
    )
    context, services = with_tools(APPROVED)
    context.earlier = (flag,)
    await run_response(rule, context, body=calling(RM, LS))
    (held,) = services.held
    assert held["call_id"] == "call_1"
    assert "block_dangerous_commands flag dangerous_command 0.82: rm -rf with an absolute path" in held["why"]
    quiet, services = with_tools()
    await run_response(rule, quiet, body=calling(RM, LS))
    assert services.held == []


async def test_an_answer_without_tool_calls_passes() -> None:
    context, services = with_tools()
    body = answer_body(Operation.CHAT, "Done.")
    outcome = await run_response(policy(), context, body=body)
    assert (outcome.body, services.held, outcome.verdict.action) == (body, [], "allow")


async def test_what_nobody_can_read_is_said_to_be_unsupported() -> None:
    context = context_for(Operation.OTHER, b"%PDF")
    outcome = await run_response(policy(), context, body=b"{}")
    assert (outcome.verdict.ran, outcome.verdict.reason) == ("unsupported", Reason.UNSUPPORTED_DIALECT)


async def test_in_shadow_mode_nothing_waits() -> None:
    context, services = with_tools()
    body = calling(RM)
    outcome = await run_response(policy(), context, body=body, mode="shadow")
    assert (outcome.body, services.held) == (body, [])
    assert (outcome.verdict.action, outcome.verdict.reason, outcome.verdict.mode) == ("hold", Reason.HELD, "shadow")


async def test_a_queue_that_fails_blocks_the_call() -> None:
    class Broken(FakeServices):
        async def hold(self, context: TransactionContext, *, timeout_s: float, on_timeout: str, **what: Any) -> HoldOutcome:
            raise RuntimeError("no queue")

    context, _ = with_tools()
    context.services = Broken()
    outcome = await run_response(policy(), context, body=calling(RM))
    assert outcome.answer is not None
    assert outcome.answer.tool_calls == ()
    assert (outcome.verdict.action, outcome.verdict.ran) == ("deny", "error")


# --- requests ---


async def test_a_request_is_held_before_it_is_sent() -> None:
    services = FakeServices(holds=[APPROVED])
    context = context_for(text="Transfer the money", services=services)
    body = context.request_body
    outcome = await run_request(policy(stage="request"), context)
    (held,) = services.held
    assert held["content"] == body.decode()
    assert (held["stage"], held["tool"]) == (Stage.REQUEST, "")
    assert "POST /v1/chat/completions" in held["why"]
    assert outcome.body == body
    assert outcome.verdict.reason is Reason.APPROVED


async def test_an_edited_request_is_what_is_sent() -> None:
    context = context_for(text="Transfer the money", services=FakeServices())
    assert isinstance(context.services, FakeServices)
    context.services.holds.append(edited(context.request_body.decode().replace("Transfer", "Count")))
    outcome = await run_request(policy(stage="request"), context)
    assert outcome.text == "Count the money"
    assert outcome.verdict.action == "modify"


@pytest.mark.parametrize(
    ("decided", "words"),
    [
        (DENIED, "This request was denied by an operator: Ask the owner first."),
        (EXPIRED, "This request was not approved in time"),
    ],
)
async def test_a_denied_request_is_refused(decided: HoldOutcome, words: str) -> None:
    outcome = await run_request(policy(stage="request"), context_for(services=FakeServices(holds=[decided])))
    assert outcome.denied is not None
    assert (outcome.denied.reason, str(outcome.denied), outcome.denied.face.status) == (decided.reason, words, 400)
    assert (outcome.verdict.action, outcome.verdict.reason) == ("deny", decided.reason)


async def test_where_time_is_up_and_approval_is_the_rule() -> None:
    services = FakeServices(holds=[HoldOutcome(decision="approve", reason=Reason.HOLD_EXPIRED)])
    outcome = await run_request(policy(stage="request", on_timeout="approve"), context_for(services=services))
    assert services.held[0]["on_timeout"] == "approve"
    assert (outcome.denied, outcome.verdict.action, outcome.verdict.reason) == (None, "allow", Reason.HOLD_EXPIRED)


async def test_a_request_that_the_filter_does_not_mean_goes_on() -> None:
    services = FakeServices()
    outcome = await run_request(policy(stage="request", filter="model:claude* or key:ci"), context_for(services=services))
    assert services.held == []
    assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", Reason.PASSED)


async def test_a_body_that_nobody_can_read_is_not_approved() -> None:
    context = context_for(Operation.OTHER, b"\xff\xfe\x00audio", services=FakeServices(holds=[APPROVED]))
    outcome = await run_request(policy(stage="request"), context)
    assert outcome.denied is not None
    assert (outcome.verdict.ran, outcome.verdict.reason) == ("error", Reason.UNSUPPORTED_DIALECT)


async def test_a_request_in_shadow_mode_does_not_wait() -> None:
    services = FakeServices()
    outcome = await run_request(policy(stage="request"), context_for(services=services), mode="shadow")
    assert (services.held, outcome.denied) == ([], None)
    assert (outcome.verdict.action, outcome.verdict.reason) == ("hold", Reason.HELD)


# --- whole answers ---


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.RESPONSES, Operation.MESSAGES, Operation.OLLAMA_CHAT])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_whole_answer_is_held_as_it_stands(operation: Operation, stream: bool) -> None:
    body = answer_stream(operation, ["Par", "is"]) if stream else answer_body(operation, "Paris")
    services = FakeServices(holds=[edited(body.decode().replace("Par", "Mad"))])
    context = context_for(operation, stream=stream, services=services)
    outcome = await run_response(policy(stage="response", filter="Par"), context, body=body, stream=stream)
    (held,) = services.held
    assert held["content"] == body.decode()
    assert held["stage"] is Stage.RESPONSE
    assert outcome.body.decode() == body.decode().replace("Par", "Mad")
    assert outcome.verdict.action == "modify"


async def test_a_denied_answer_is_refused() -> None:
    context = context_for(services=FakeServices(holds=[DENIED]))
    outcome = await run_response(policy(stage="response"), context, text="Paris")
    assert outcome.denied is not None
    assert str(outcome.denied) == "This response was denied by an operator: Ask the owner first."


async def test_an_upstreams_error_is_not_held() -> None:
    services = FakeServices()
    body = b'{"error": {"message": "overloaded"}}'
    outcome = await run_response(policy(stage="response"), context_for(services=services), body=body, status=529)
    assert (services.held, outcome.body) == ([], body)


# --- parameters ---


def test_parameters() -> None:
    params = HoldForApprovalParams()
    assert (params.stage, params.filter, params.timeout_s, params.on_timeout, params.message) == (
        "tool_call",
        "",
        600,
        "deny",
        "",
    )
    assert HoldForApproval.registry_name() == "hold_for_approval"
    assert HoldForApproval.waits_for_people
    assert HoldForApproval.default_on_error == "deny"


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"filter": "tol:bash"}, "column 1: no field 'tol'; did you mean 'tool'"),
        ({"filter": "tool:bash and"}, "column 14"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": 86_401}, "timeout_s"),
        ({"on_timeout": "wait"}, "on_timeout"),
        ({"stage": "session"}, "stage"),
        ({"timeout": 5}, "timeout"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as raised:
        HoldForApprovalParams(**params)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("stage", "release", "acts"),
    [
        ("request", Release.PASS, Stage.REQUEST),
        ("response", Release.FULL, Stage.RESPONSE),
        ("tool_call", Release.BLOCK, Stage.RESPONSE),
    ],
)
def test_it_keeps_back_no_more_than_its_stage_needs(stage: str, release: Release, acts: Stage) -> None:
    rule = policy(stage=stage)
    assert rule.release_mode() is release
    assert [one for one in (Stage.REQUEST, Stage.RESPONSE) if rule.acts_on(one, before_send=True)] == [acts]
    assert [one for one in (Stage.REQUEST, Stage.RESPONSE) if rule.acts_on(one, before_send=False)] == [acts]
