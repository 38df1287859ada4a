"""The key of a chosen variable takes the place of the client's."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy_core.policies.add_api_key_header_from_env import AddApiKeyHeaderFromEnvParams, AddApiKeyHeaderFromEnvPolicy
from proxy_core.policies.testing import Outcome, context_for, run_request
from proxy_core.wire.dialects import Operation


async def asked(operation: Operation) -> Outcome:
    policy = AddApiKeyHeaderFromEnvPolicy(AddApiKeyHeaderFromEnvParams(api_key_env_var_name="HOUSE_KEY"))
    return await run_request(policy, context_for(operation, headers=[(b"x-api-key", b"of-the-client")]))


async def test_the_key_goes_where_the_upstream_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSE_KEY", "key-of-the-house")
    assert (await asked(Operation.MESSAGES)).context.request_headers == [(b"x-api-key", b"key-of-the-house")]
    assert (await asked(Operation.CHAT)).context.request_headers == [(b"authorization", b"Bearer key-of-the-house")]


@pytest.mark.parametrize("value", [None, "", "\t"])
async def test_without_one_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("HOUSE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("HOUSE_KEY", value)
    outcome = await asked(Operation.CHAT)
    assert outcome.denied is not None
    assert outcome.verdict.reason == "api_key_missing"
    assert "HOUSE_KEY" in outcome.verdict.message


def test_the_variable_must_be_named() -> None:
    for params in ({}, {"api_key_env_var_name": ""}, {"api_key_env_var_name": "A", "other": 1}):
        with pytest.raises(ValidationError):
            AddApiKeyHeaderFromEnvParams.model_validate(params)
