"""Requests go to a chosen upstream, and never to one that is not configured."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy_core.errors import ConfigurationError
from proxy_core.policies.registry import build_policy
from proxy_core.policies.set_backend import SetBackendParams, SetBackendPolicy
from proxy_core.policies.testing import FakeServices, Outcome, context_for, run_request
from proxy_core.settings import Settings, UpstreamSettings
from proxy_core.transaction import Route
from proxy_core.wire.dialects import Dialect, Operation

SERVICES = FakeServices(
    upstreams={
        "openai": (Dialect.OPENAI, "https://api.openai.com"),
        "near": (Dialect.OPENAI, "http://near:8000/openai"),
        "ollama": (Dialect.OLLAMA, "http://localhost:11434"),
        "anthropic": (Dialect.ANTHROPIC, "https://api.anthropic.com"),
    }
)
SETTINGS = Settings(
    upstreams={
        "openai": UpstreamSettings(api="openai", base_url="https://api.openai.com/v1"),
        "near": UpstreamSettings(api="openai", base_url="http://near:8000/openai"),
    }
)


async def asked(operation: Operation = Operation.CHAT, **params: str) -> Outcome:
    policy = SetBackendPolicy(SetBackendParams.model_validate(params))
    return await run_request(policy, context_for(operation, services=SERVICES))


@pytest.mark.parametrize(
    "params",
    [
        {"upstream": "near"},
        {"backend_url": "http://near:8000/openai"},
        {"backend_url": "http://near:8000/openai/"},
        {"backend_url": "http://near:8000/openai/v1"},
    ],
)
async def test_the_upstream_is_chosen_by_name_or_root(params: dict[str, str]) -> None:
    outcome = await asked(**params)
    assert outcome.context.route == Route("near", "backend_set", Dialect.OPENAI)
    assert (outcome.verdict.action, outcome.verdict.reason) == ("route", "backend_set")
    assert outcome.verdict.detail == {"upstream": "near", "instead_of": "openai"}
    build_policy("set_backend", params, SETTINGS)


async def test_ollama_understands_openai() -> None:
    outcome = await asked(upstream="ollama")
    assert outcome.context.route == Route("ollama", "backend_set", Dialect.OLLAMA)


@pytest.mark.parametrize(("operation", "upstream"), [(Operation.CHAT, "anthropic"), (Operation.MESSAGES, "openai")])
async def test_an_upstream_of_another_api_is_a_fault(operation: Operation, upstream: str) -> None:
    outcome = await asked(operation, upstream=upstream)
    assert outcome.denied is not None
    assert (outcome.verdict.ran, outcome.verdict.reason) == ("error", "unsupported_dialect")
    assert outcome.context.route.upstream != upstream


@pytest.mark.parametrize("params", [{"upstream": "evil"}, {"backend_url": "http://evil.example/"}, {"backend_url": ""}])
async def test_what_is_not_configured_cannot_be_reached(params: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="no upstream"):
        build_policy("set_backend", params, SETTINGS, "policies[2]")
    outcome = await asked(**params)
    assert outcome.denied is not None
    assert outcome.context.route.upstream == "openai"


@pytest.mark.parametrize("params", [{}, {"upstream": "near", "backend_url": "http://near:8000"}, {"url": "x"}])
def test_wrong_parameters_are_refused(params: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SetBackendParams.model_validate(params)
