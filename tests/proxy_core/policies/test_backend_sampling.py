"""BackendSampling: several answers to one request, what is kept of them, and what is said of those that failed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from proxy_core.errors import UpstreamTimeout
from proxy_core.policies.backend_sampling import SAMPLES, BackendSamplingParams, BackendSamplingPolicy
from proxy_core.policies.chain import Chain, Entry, Shadows
from proxy_core.policies.testing import FakeServices, context_for, run_request
from proxy_core.transaction import TransactionContext, WholeResponse
from proxy_core.verdicts import Verdict
from proxy_core.wire.dialects import Operation
from tests.proxy_core.policies.asked_models import refuses, says


async def sampled(
    answers: list[WholeResponse | Exception], operation: Operation = Operation.CHAT, **params: Any
) -> tuple[TransactionContext, FakeServices, Verdict]:
    """Run it as a chain's sender does; what it cannot send is raised."""
    services = FakeServices(answers)
    context = context_for(operation, services=services)
    policy = BackendSamplingPolicy(BackendSamplingParams.model_validate(params))
    entry = Entry("backend_sampling", "backend_sampling", policy, "enforce", "deny", 5.0)
    said: list[Verdict] = []
    context = await Chain([entry]).run_request(context, Shadows(said.extend))
    return context, services, context.verdicts[-1]


def texts(context: TransactionContext) -> list[str]:
    return [sample.answer.text for sample in context.data[SAMPLES] if sample.answer is not None]


async def test_all_answers_are_kept_and_the_first_becomes_the_transactions() -> None:
    context, services, verdict = await sampled(
        [says("one", cost_usd=0.1), says("two", cost_usd=0.2), says("three", cost_usd=0.3)]
    )

    assert texts(context) == ["one", "two", "three"]
    assert context.answer is not None and context.answer.text == "one"
    assert (verdict.reason, verdict.ran) == ("samples_taken", "ran")
    assert verdict.detail["costs_usd"] == [0.1, 0.2, 0.3]
    assert verdict.detail["cost_usd"] == pytest.approx(0.6)
    assert len({sent["body"] for sent in services.sent}) == 1
    assert services.sent[0]["body"] == context.request_body


async def test_they_are_asked_for_side_by_side_as_many_as_may() -> None:
    class Counts(FakeServices):
        at_once = most = 0

        async def send(self, context: TransactionContext, **given: Any) -> WholeResponse:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            for _ in range(3):
                await asyncio.sleep(0)
            self.at_once -= 1
            return says("x")

    for concurrency in (1, 2, 5):
        services = Counts()
        policy = BackendSamplingPolicy(BackendSamplingParams(samples=5, concurrency=concurrency))
        await run_request(policy, context_for(services=services))
        assert services.most == concurrency


async def test_what_failed_is_said_and_the_good_ones_are_enough() -> None:
    context, _, verdict = await sampled([UpstreamTimeout("too slow"), refuses(429), says("three", cost_usd=None)])

    assert texts(context) == ["three"]
    assert context.answer is not None and context.answer.text == "three"
    assert verdict.ran == "partial"
    assert verdict.message == "1 of 3 answers; too slow"
    assert verdict.detail["statuses"] == [429, 200]
    assert verdict.detail["cost_usd"] is None


async def test_one_failure_may_fail_all() -> None:
    with pytest.raises(UpstreamTimeout):
        await sampled([says("one"), UpstreamTimeout("too slow")], samples=2, keep_first_on_error=False)
    context, _, _ = await sampled([says("one"), refuses(429)], samples=2, keep_first_on_error=False)
    assert context.response_status == 429


async def test_where_no_answer_is_good_the_client_hears_why() -> None:
    context, _, verdict = await sampled([refuses(429), refuses(500)], samples=2)

    assert context.response_status == 429
    assert context.data[SAMPLES] == []
    assert (verdict.ran, verdict.detail["good"]) == ("partial", 0)
    with pytest.raises(UpstreamTimeout):
        await sampled([UpstreamTimeout("too slow"), UpstreamTimeout("too slow")], samples=2)


async def test_a_temperature_may_be_put_in() -> None:
    _, services, _ = await sampled([says("x")] * 2, samples=2, temperature=0.7)
    _, ollama, _ = await sampled([says("x")] * 2, Operation.OLLAMA_CHAT, samples=2, temperature=0.7)

    assert json.loads(services.sent[1]["body"])["temperature"] == 0.7
    assert json.loads(ollama.sent[1]["body"])["options"] == {"temperature": 0.7}


async def test_where_there_is_nothing_to_choose_between_one_request_goes_out() -> None:
    context, services, verdict = await sampled([says("models")], Operation.MODELS)

    assert len(services.sent) == 1
    assert context.response_status == 200
    assert (verdict.ran, verdict.reason) == ("skipped", "not_applicable")


async def test_a_shadow_sends_nothing() -> None:
    services = FakeServices([says("x")] * 3)

    outcome = await run_request(BackendSamplingPolicy(BackendSamplingParams()), context_for(services=services), mode="shadow")

    assert services.sent == []
    assert all(verdict.ran == "skipped" for verdict in outcome.verdicts)
