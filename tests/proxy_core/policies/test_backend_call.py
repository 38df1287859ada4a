"""BackendCall: one call with other fields, to a configured upstream and to no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy_core.errors import ConfigurationError
from proxy_core.policies.backend_call import BackendCallParams, BackendCallPolicy
from proxy_core.policies.registry import build_policy
from proxy_core.policies.testing import FakeServices, Outcome, context_for, run_request
from proxy_core.settings import Settings
from proxy_core.wire.dialects import Operation
from tests.proxy_core.policies.asked_models import says

BODY = b'{"messages":[{"role":"user","content":"Hi"}],"model":"m-1","temperature":0.10,"own":1e2}'


async def called(operation: Operation = Operation.CHAT, **spec: Any) -> tuple[Outcome, FakeServices]:
    services = FakeServices([says("Hello", operation)])
    params = BackendCallParams.model_validate({"backend_call_spec": spec})
    policy = BackendCallPolicy(params, environment={"OTHER_KEY": "sk-other"})
    context = context_for(operation, BODY, services=services, headers=[(b"authorization", b"Bearer sk-client")])
    return await run_request(policy, context), services


async def test_named_fields_are_replaced_and_the_others_keep_their_bytes() -> None:
    outcome, services = await called(model="m-2", request_args={"temperature": 1, "top_p": 0.5})

    sent = services.sent[0]["body"]
    assert json.loads(sent) == {
        "messages": [{"role": "user", "content": "Hi"}],
        "model": "m-2",
        "temperature": 1,
        "own": 100.0,
        "top_p": 0.5,
    }
    assert b'"own":1e2' in sent
    assert outcome.context.answer is not None and outcome.context.answer.text == "Hello"
    assert (outcome.verdict.action, outcome.verdict.detail["fields"]) == ("modify", ["model", "temperature", "top_p"])


async def test_with_nothing_named_the_request_goes_out_as_it_came() -> None:
    outcome, services = await called()

    assert services.sent[0]["body"] == BODY
    assert outcome.verdict.action == "allow"


async def test_another_upstream_is_found_by_its_url_or_name() -> None:
    for endpoint in ("http://localhost:11434/v1", "ollama"):
        outcome, services = await called(api_endpoint=endpoint)

        assert services.sent[0]["upstream"] == "ollama"
        assert outcome.context.route.upstream == "ollama"
        assert outcome.verdict.action == "route"


async def test_an_upstream_of_another_api_is_a_fault() -> None:
    outcome, services = await called(api_endpoint="https://api.anthropic.com")

    assert services.sent == []
    assert outcome.denied is not None
    assert outcome.denied.reason == "unsupported_dialect"


async def test_the_key_may_come_from_the_environment() -> None:
    outcome, services = await called(api_key_env_var="OTHER_KEY")

    assert (b"authorization", b"Bearer sk-other") in services.sent[0]["headers"]
    assert "sk-other" not in str(outcome.verdicts)


async def test_a_key_that_does_not_exist_is_a_fault_and_nothing_is_sent() -> None:
    outcome, services = await called(api_key_env_var="NO_SUCH_KEY")

    assert services.sent == []
    assert outcome.denied is not None
    assert outcome.denied.reason == "api_key_missing"


async def test_a_body_that_is_no_object_is_a_fault() -> None:
    services = FakeServices([says("x")])
    policy = BackendCallPolicy(BackendCallParams.model_validate({"backend_call_spec": {"model": "m-2"}}))

    outcome = await run_request(policy, context_for(body=b"[]", services=services))

    assert services.sent == []
    assert outcome.denied is not None


def test_an_endpoint_that_is_not_configured_is_refused_when_it_is_loaded() -> None:
    spec = {"backend_call_spec": {"api_endpoint": "https://evil.example.com/v1"}}

    with pytest.raises(ConfigurationError, match=r"backend_call_spec\.api_endpoint: no upstream has this base_url"):
        build_policy("backend_call", spec, Settings())
    assert build_policy("BackendCallPolicy", {"backend_call_spec": {"api_endpoint": "https://api.openai.com/v1"}}, Settings())
