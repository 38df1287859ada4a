"""Nothing happens, and the verdict says that it passed."""

from __future__ import annotations

import pytest

from proxy_core.policies.base import PolicyParams, Release
from proxy_core.policies.noop import NoopPolicy
from proxy_core.policies.testing import STREAMED, answer_stream, context_for, request_body, run_request, run_response
from proxy_core.wire.dialects import Operation


@pytest.mark.parametrize("operation", STREAMED)
async def test_streams_pass_byte_by_byte(operation: Operation) -> None:
    policy = NoopPolicy(PolicyParams())
    assert policy.release_mode() is Release.PASS
    outcome = await run_response(policy, context_for(operation, stream=True), pieces=["a", "b"], stream=True)
    assert outcome.body == answer_stream(operation, ["a", "b"])
    assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", "passed")


async def test_requests_and_whole_answers_pass() -> None:
    outcome = await run_request(NoopPolicy(PolicyParams()), context_for(text="hello"))
    assert outcome.body == request_body(Operation.CHAT, "hello")
    assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", "passed")
