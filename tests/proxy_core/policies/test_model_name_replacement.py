"""The model is renamed by an exact match; nothing else changes."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from proxy_core.policies.model_name_replacement import ModelNameReplacementParams, ModelNameReplacementPolicy
from proxy_core.policies.testing import Outcome, context_for, run_request
from proxy_core.policies.text_policy import TEXT_OPERATIONS
from proxy_core.wire.dialects import Operation


async def asked(body: bytes | None = None, operation: Operation = Operation.CHAT, **mapping: str) -> Outcome:
    policy = ModelNameReplacementPolicy(ModelNameReplacementParams(model_mapping=mapping))
    return await run_request(policy, context_for(operation, body))


@pytest.mark.parametrize("operation", sorted(TEXT_OPERATIONS, key=str))
async def test_every_dialect_asks_for_the_other_model(operation: Operation) -> None:
    outcome = await asked(None, operation, **{"m-1": "m-2"})
    assert json.loads(outcome.body)["model"] == "m-2"
    assert (outcome.verdict.action, outcome.verdict.reason) == ("modify", "model_renamed")
    assert outcome.verdict.detail == {"from_model": "m-1", "to_model": "m-2"}


async def test_the_rest_keeps_its_bytes() -> None:
    body = b'{"n":1.00,"model":"gpt-4","odd":{"b":1e400,"a":"\\u00e4"},"big":123456789012345678901234567890}'
    outcome = await asked(body, **{"gpt-4": "local"})
    assert outcome.body == body.replace(b'"gpt-4"', b'"local"')


@pytest.mark.parametrize("model", ['"gpt-4o"', '"GPT-4"', '""', "null", "4", '["gpt-4"]'])
async def test_only_an_exact_name_matches(model: str) -> None:
    body = b'{"model":%b}' % model.encode()
    outcome = await asked(body, **{"gpt-4": "local"})
    assert outcome.body == body
    assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", "passed")


async def test_a_body_without_a_model_passes() -> None:
    assert (await asked(b"{}", **{"": "local"})).body == b"{}"


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"model":"gpt-4"', b'{"model":"gpt-4","model":"gpt-4"}', b"[" * 100_000])
async def test_a_body_that_cannot_be_read_passes_and_that_is_said(body: bytes) -> None:
    outcome = await asked(body, **{"gpt-4": "local"})
    assert outcome.body == body
    assert outcome.verdict.ran == "unsupported"


def test_wrong_parameters_are_refused() -> None:
    for mapping in ({"a": ""}, {"a": 1}, ["a"]):
        with pytest.raises(ValidationError):
            ModelNameReplacementParams.model_validate({"model_mapping": mapping})
