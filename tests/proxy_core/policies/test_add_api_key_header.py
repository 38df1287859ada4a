"""The key of OPENAI_API_KEY takes the place of the client's."""

from __future__ import annotations

import pytest

from proxy_core.policies.add_api_key_header import AddApiKeyHeaderPolicy
from proxy_core.policies.base import PolicyParams
from proxy_core.policies.testing import context_for, run_request


async def test_the_key_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-house")
    context = context_for(headers=[(b"authorization", b"Bearer of-the-client")])
    outcome = await run_request(AddApiKeyHeaderPolicy(PolicyParams()), context)
    assert outcome.context.request_headers == [(b"authorization", b"Bearer key-of-the-house")]
    assert outcome.verdict.reason == "api_key_added"


async def test_without_one_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    outcome = await run_request(AddApiKeyHeaderPolicy(PolicyParams()), context_for())
    assert outcome.denied is not None
    assert (outcome.verdict.action, outcome.verdict.reason) == ("deny", "api_key_missing")
