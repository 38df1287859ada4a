"""BlockDangerousCommands: an agent that would delete things is stopped, and goes on."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy_core.policies.block_dangerous_commands import BlockDangerousCommandsPolicy
from proxy_core.policies.command_policy import CommandParams
from proxy_core.policies.testing import Outcome, context_for, run_response
from proxy_core.verdicts import Mode, Stage
from proxy_core.wire.dialects import Operation
from tests.proxy_core.policies.tool_calls import DIALECTS, LS, RM, Call, streamed_answer, whole_answer


async def ran(
    calls: list[Call], operation: Operation = Operation.CHAT, *, stream: bool = False, mode: Mode = "enforce", **params: Any
) -> Outcome:
    policy = BlockDangerousCommandsPolicy(CommandParams.model_validate(params))
    body = streamed_answer(operation, "", calls) if stream else whole_answer(operation, "", calls)
    return await run_response(policy, context_for(operation, stream=stream), body=body, stream=stream, mode=mode)


def bash(command: str) -> Call:
    import json

    return ("call_1", "Bash", json.dumps({"command": command}))


@pytest.mark.parametrize("operation", DIALECTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_dangerous_command_is_blocked_and_the_rest_passes(operation: Operation, stream: bool) -> None:
    outcome = await ran([RM, LS], operation, stream=stream)

    assert outcome.answer is not None
    assert [call.arguments.replace(" ", "") for call in outcome.answer.tool_calls] == ['{"command":"ls"}']
    denied, passed = outcome.verdicts
    assert (denied.action, denied.reason, denied.score, denied.stage) == ("deny", "dangerous_command", 0.7, Stage.TOOL_CALL)
    assert denied.detail["rule"] == "delete_recursively"
    assert denied.detail["found"] == "rm -rf /srv/builds"
    assert (passed.action, passed.score) == ("allow", 0.0)


async def test_the_threshold_says_how_much_is_too_much() -> None:
    assert (await ran([RM], threshold=0.8)).verdict.action == "allow"
    assert (await ran([bash("rm notes.txt")], threshold=0.3)).verdict.action == "deny"
    assert (await ran([bash("rm notes.txt")])).verdict.action == "allow"


async def test_what_the_operator_allows_passes_but_not_what_stands_beside_it() -> None:
    assert (await ran([RM], allow=["rm -rf /srv/builds*"])).verdict.action == "allow"
    assert (await ran([bash("rm -rf /srv/builds; rm -rf /")], allow=["rm -rf /srv/builds*"])).verdict.action == "deny"


async def test_flagging_only_notes() -> None:
    outcome = await ran([RM], action="flag")

    assert outcome.verdict.action == "flag"
    assert outcome.body == whole_answer(Operation.CHAT, "", [RM])


async def test_in_shadow_mode_nothing_changes_and_the_verdict_says_what_would_have() -> None:
    outcome = await ran([RM], mode="shadow", stream=True)

    assert outcome.body == streamed_answer(Operation.CHAT, "", [RM])
    assert any((verdict.action, verdict.mode) == ("deny", "shadow") for verdict in outcome.verdicts)


async def test_other_tools_may_be_named_that_run_commands() -> None:
    call = ("call_1", "deploy_helper", '{"step": "rm -rf /"}')

    assert (await ran([call])).verdict.action == "allow"
    assert (await ran([call], tools=["deploy_*"])).verdict.action == "deny"


async def test_arguments_that_cannot_be_read_are_blocked_at_any_threshold() -> None:
    outcome = await ran([("call_1", "Bash", '{"command": "ls"')], threshold=1.0)

    assert (outcome.verdict.action, outcome.verdict.score) == ("deny", None)


async def test_the_message_is_what_the_agent_reads() -> None:
    assert (await ran([RM], message="Not {tool_name}: use trash.")).text == "Not Bash: use trash."


def test_a_threshold_outside_of_its_bounds_is_refused() -> None:
    with pytest.raises(ValidationError):
        CommandParams(threshold=1.5)
