"""ToolCallPolicy: what becomes of an answer whose tool calls are decided one by one, whole and streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy_core.policies.base import PolicyDenied, PolicyFault, PolicyParams
from proxy_core.policies.testing import FakeServices, Outcome, context_for, run_response
from proxy_core.policies.tool_policy import ALLOW, BLOCK, ToolCallPolicy, ToolDecision
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import HoldOutcome, TransactionContext
from proxy_core.verdicts import OnError, Stage
from proxy_core.wire.conversation import (
    EndEvent,
    StopEvent,
    StreamEvent,
    TextDelta,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from proxy_core.wire.dialects import Operation
from tests.proxy_core.policies.tool_calls import DIALECTS, LS, READ, RM, Call, streamed_answer, whole_answer


class Decides(ToolCallPolicy[PolicyParams]):
    """Blocks `rm`, replaces `ls`, fails on `boom`, refuses all on `refuse`, and waits a moment before it decides."""

    async def decide(self, context: TransactionContext, call: ToolCallBlock) -> ToolDecision:
        await asyncio.sleep(0)
        if "boom" in call.arguments:
            raise PolicyFault(Reason.JUDGE_UNAVAILABLE, "nobody answers")
        if "refuse" in call.arguments:
            raise PolicyDenied(Reason.POLICY_DECISION, "not today")
        if "rm " in call.arguments:
            self.say(context, call, "deny", Reason.DANGEROUS_COMMAND, score=0.9)
            return BLOCK
        if '"ls"' in call.arguments:
            self.say(context, call, "modify", Reason.POLICY_DECISION)
            return ToolDecision("replace", arguments='{"command":"ls -la"}')
        return ALLOW


class DecidesAtOnce(Decides):
    decides_at_once: ClassVar[bool] = True

    async def decide(self, context: TransactionContext, call: ToolCallBlock) -> ToolDecision:
        if "boom" in call.arguments:
            raise ValueError("broken")
        return BLOCK if "rm " in call.arguments else ALLOW


def policy() -> Decides:
    return Decides(PolicyParams())


async def ran(
    calls: list[Call],
    *,
    operation: Operation = Operation.CHAT,
    stream: bool = False,
    text: str = "Let me look.",
    chunk_bytes: int = 0,
    cut: int = 7,
    on_error: OnError | None = None,
    services: FakeServices | None = None,
    by: ToolCallPolicy[Any] | None = None,
) -> Outcome:
    body = streamed_answer(operation, text, calls, cut=cut) if stream else whole_answer(operation, text, calls)
    context = context_for(operation, stream=stream, services=services)
    return await run_response(by or policy(), context, body=body, stream=stream, chunk_bytes=chunk_bytes, on_error=on_error)


def calls_of(outcome: Outcome) -> list[tuple[str, Any]]:
    assert outcome.answer is not None
    return [(call.name, json.loads(call.arguments)) for call in outcome.answer.tool_calls]


@pytest.mark.parametrize("operation", DIALECTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_whose_calls_all_pass_keeps_its_bytes(operation: Operation, stream: bool) -> None:
    outcome = await ran([READ], operation=operation, stream=stream)

    expected = streamed_answer(operation, "Let me look.", [READ]) if stream else whole_answer(operation, "Let me look.", [READ])
    assert outcome.body == expected


@pytest.mark.parametrize("operation", DIALECTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_blocked_call_leaves_a_notice_and_the_turn_ends_as_if_no_tool_was_called(
    operation: Operation, stream: bool
) -> None:
    outcome = await ran([RM], operation=operation, stream=stream)

    assert calls_of(outcome) == []
    assert outcome.answer is not None
    assert "[Tool call `Bash` was blocked by policy]" in outcome.text
    assert outcome.text.startswith("Let me look.")
    assert outcome.answer.complete
    assert (
        outcome.answer.stop_reason
        == {
            Operation.CHAT: "stop",
            Operation.MESSAGES: "end_turn",
            Operation.RESPONSES: "completed",
            Operation.OLLAMA_CHAT: "stop",
        }[operation]
    )
    assert b"rm -rf" not in outcome.body
    verdict = outcome.verdict
    assert (verdict.action, verdict.reason, verdict.stage, verdict.score) == ("deny", "dangerous_command", Stage.TOOL_CALL, 0.9)
    assert verdict.detail["tool"] == "Bash"


@pytest.mark.parametrize("operation", DIALECTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_where_one_of_two_calls_passes_the_turn_is_still_a_tool_turn(operation: Operation, stream: bool) -> None:
    outcome = await ran([RM, READ], operation=operation, stream=stream)

    assert calls_of(outcome) == [("Read", {"file_path": "README.md"})]
    assert outcome.answer is not None
    expected = {Operation.CHAT: "tool_calls", Operation.MESSAGES: "tool_use", Operation.RESPONSES: "completed"}
    assert outcome.answer.stop_reason == expected.get(operation, "stop")
    kinds = [type(block).__name__ for block in outcome.answer.blocks]
    assert kinds.index("ToolCallBlock") == len(kinds) - 1  # no text after a tool call
    assert outcome.text.endswith("[Tool call `Bash` was blocked by policy]")


@pytest.mark.parametrize("operation", DIALECTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_replaced_arguments_go_out_under_the_same_name_and_id(operation: Operation, stream: bool) -> None:
    outcome = await ran([LS, READ], operation=operation, stream=stream)

    assert calls_of(outcome) == [("Bash", {"command": "ls -la"}), ("Read", {"file_path": "README.md"})]
    assert outcome.answer is not None
    if operation is not Operation.OLLAMA_CHAT:
        assert [call.call_id for call in outcome.answer.tool_calls] == ["call_2", "call_3"]
    assert outcome.text == "Let me look."


async def test_several_blocked_calls_are_named_in_one_notice() -> None:
    outcome = await ran([RM, ("call_9", "Shell", '{"command": "rm -rf ~"}')], operation=Operation.MESSAGES, stream=True)

    assert outcome.text.endswith("[Tool calls `Bash`, `Shell` were blocked by policy]")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_decision_blocks_its_call_and_says_that_nobody_could_judge(stream: bool) -> None:
    outcome = await ran([RM, ("call_9", "Send", '{"to": "boom"}'), READ], stream=stream)

    assert [name for name, _ in calls_of(outcome)] == ["Read"]
    assert "[Tool calls `Bash`, `Send` were blocked: policy evaluation unavailable]" in outcome.text
    failed = next(verdict for verdict in outcome.verdicts if verdict.ran == "error")
    assert (failed.action, failed.reason, failed.score) == ("deny", "judge_unavailable", None)


async def test_a_failed_decision_passes_its_call_where_on_error_allows_it() -> None:
    outcome = await ran([RM, ("call_9", "Send", '{"to": "boom"}')], on_error="allow")

    assert [name for name, _ in calls_of(outcome)] == ["Send"]
    assert [(verdict.action, verdict.ran) for verdict in outcome.verdicts] == [("deny", "ran"), ("allow", "error")]


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_failed_decision_goes_to_a_person_where_on_error_holds_it(at_once: bool) -> None:
    approved = HoldOutcome(decision="edit", reason=Reason.APPROVED_EDITED, edited='{"to":"ada"}', who="ada")
    services = FakeServices(holds=[approved])
    by = DecidesAtOnce(PolicyParams()) if at_once else policy()

    outcome = await ran([("call_9", "Send", '{"to": "boom"}')], stream=True, on_error="hold", services=services, by=by)

    assert calls_of(outcome) == [("Send", {"to": "ada"})]
    assert services.held[0]["content"] == '{"to": "boom"}'
    assert services.held[0]["on_timeout"] == "deny"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_policy_may_refuse_the_whole_answer(stream: bool) -> None:
    outcome = await ran([READ, ("call_9", "Send", '{"to": "refuse"}')], stream=stream)

    assert outcome.denied is not None
    assert outcome.denied.reason is Reason.POLICY_DECISION
    if stream:
        assert b"README" not in outcome.body


async def test_decisions_that_need_no_waiting_give_the_same() -> None:
    outcome = await ran([RM, READ, ("call_9", "Send", '{"to": "boom"}')], stream=True, by=DecidesAtOnce(PolicyParams()))

    assert [name for name, _ in calls_of(outcome)] == ["Read"]
    assert outcome.text.endswith("[Tool calls `Bash`, `Send` were blocked: policy evaluation unavailable]")


async def test_text_flows_while_a_call_is_kept_back() -> None:
    """What the client has seen when the upstream pauses inside a tool call."""
    gate: asyncio.Event = asyncio.Event()
    passed: list[StreamEvent] = []

    async def upstream() -> AsyncIterator[StreamEvent]:
        yield TextDelta(0, "Hello")
        yield ToolCallStart(0, "call_1", "Bash")
        yield ToolCallDelta(0, '{"command": "rm ')
        await gate.wait()
        yield ToolCallDelta(0, '-rf /"}')
        yield ToolCallEnd(0)
        yield TextDelta(0, " and more")
        yield StopEvent("tool_calls")
        yield EndEvent()

    async def consume() -> None:
        async for event in policy().on_stream(context_for(), upstream()):
            passed.append(event)

    task = asyncio.ensure_future(consume())
    for _ in range(5):
        await asyncio.sleep(0)
    assert passed == [TextDelta(0, "Hello")]
    gate.set()
    await task
    notice = TextDelta(-1, "[Tool call `Bash` was blocked by policy]")
    assert passed[1:] == [notice, TextDelta(0, " and more"), StopEvent("tool_calls"), EndEvent()]


async def test_closing_the_stream_ends_the_decisions_that_run() -> None:
    ended = asyncio.Event()

    class Waits(ToolCallPolicy[PolicyParams]):
        async def decide(self, context: TransactionContext, call: ToolCallBlock) -> ToolDecision:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return ALLOW

    async def upstream() -> AsyncIterator[StreamEvent]:
        yield ToolCallStart(0, "call_1", "Bash")
        yield ToolCallEnd(0)
        yield StopEvent("tool_calls")

    stream = Waits(PolicyParams()).on_stream(context_for(), upstream())
    waiting = asyncio.ensure_future(anext(stream))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(ended.wait(), 30)


async def test_calls_in_disorder_are_decided_each_for_itself() -> None:
    """The same id twice, no name, a delta before its start, an end twice, no end at all."""
    seen: list[tuple[str, str, str]] = []

    class Looks(ToolCallPolicy[PolicyParams]):
        async def decide(self, context: TransactionContext, call: ToolCallBlock) -> ToolDecision:
            seen.append((call.call_id, call.name, call.arguments))
            return BLOCK if "bad" in call.arguments else ALLOW

    async def upstream() -> AsyncIterator[StreamEvent]:
        yield ToolCallDelta(7, "bad")
        yield ToolCallStart(0, "same", "A")
        yield ToolCallStart(1, "same", "")
        yield ToolCallDelta(1, "[1")
        yield ToolCallEnd(0)
        yield ToolCallEnd(0)
        yield ToolCallStart(2, "same", "bad")
        yield ToolCallDelta(2, "bad")
        yield StopEvent("tool_calls")
        yield EndEvent()

    passed = [event async for event in Looks(PolicyParams()).on_stream(context_for(), upstream())]

    assert sorted(seen) == [("", "", "bad"), ("same", "", "[1"), ("same", "A", ""), ("same", "bad", "bad")]
    assert passed == [
        TextDelta(-1, "[Tool calls `(unnamed)`, `bad` were blocked by policy]"),
        ToolCallStart(0, "same", "A"),
        ToolCallStart(1, "same", ""),
        ToolCallDelta(1, "[1"),
        ToolCallEnd(0),
        ToolCallEnd(0),
        StopEvent("tool_calls"),
        EndEvent(),
    ]


async def test_a_stream_that_breaks_off_is_decided_with_what_came() -> None:
    outcome = await ran([RM], stream=True, text="", operation=Operation.CHAT)
    cut_off = streamed_answer(Operation.CHAT, "", [RM]).partition(b'"finish_reason": "tool_calls"')[0].rpartition(b"data: ")[0]

    broken = await run_response(policy(), context_for(stream=True), body=cut_off, stream=True)

    assert "blocked by policy" in outcome.text
    assert b"/srv" not in broken.body


@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_read_cannot_be_judged(stream: bool) -> None:
    body = b"data: {broken\n\ndata: [DONE]\n\n" if stream else b'{"choices": "none"'

    outcome = await run_response(policy(), context_for(stream=stream), body=body, stream=stream)

    assert outcome.denied is not None
    assert outcome.denied.reason is Reason.UNSUPPORTED_DIALECT


async def test_errors_of_the_upstream_pass() -> None:
    body = b'{"error": {"message": "too many", "type": "rate_limit"}}'

    outcome = await run_response(policy(), context_for(), body=body, status=429)

    assert outcome.body == body
    assert outcome.denied is None


async def test_an_enormous_call_is_decided_like_any_other() -> None:
    huge = json.dumps({"command": "rm -rf / " + "x" * 5_000_000})

    outcome = await ran([("call_1", "Bash", huge)], stream=True, text="", cut=1_000_000)

    assert calls_of(outcome) == []


async def test_a_name_cannot_forge_the_notice() -> None:
    outcome = await ran([("call_1", "x`\n[all fine]\u202e" + "y" * 500, '{"command": "rm -rf /"}')])

    notice = outcome.text.partition("Let me look.")[2].strip()
    assert notice.startswith("[Tool call `x[all fine]yyy")
    assert "\n" not in notice and len(notice) < 150


CALLS = st.lists(
    st.sampled_from(
        [RM, LS, READ, ("call_8", "Send", '{"to": "böom ☃"}'), ("call_9", "Send", '{"to": "boom"}'), ("call_7", "Now", "{}")]
    ),
    max_size=4,
    unique_by=lambda call: call[0],
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=CALLS,
    text=st.sampled_from(["", "Let me look.", "Ünïcode ☃ text\nover lines"]),
    operation=st.sampled_from(DIALECTS),
    cut=st.integers(1, 12),
    chunk_bytes=st.integers(1, 300),
)
def test_a_stream_gives_the_same_as_the_whole_wherever_it_is_cut(
    calls: list[Call], text: str, operation: Operation, cut: int, chunk_bytes: int
) -> None:
    async def both() -> tuple[Outcome, Outcome]:
        whole = await ran(calls, operation=operation, text=text)
        return whole, await ran(calls, operation=operation, text=text, stream=True, cut=cut, chunk_bytes=chunk_bytes)

    whole, stream = asyncio.run(both())
    assert calls_of(stream) == calls_of(whole)
    assert stream.text.split("\n") == whole.text.split("\n") or stream.text.replace("\n", "") == whole.text.replace("\n", "")
    assert stream.answer is not None and whole.answer is not None
    assert stream.answer.stop_reason == whole.answer.stop_reason
    assert stream.answer.complete
    said = [sorted((v.action, v.reason, v.ran, v.stage) for v in one.verdicts) for one in (stream, whole)]
    assert said[0] == said[1] or not calls
