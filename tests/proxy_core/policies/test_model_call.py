"""Asking a model from inside a policy: each API's own form, and faults in place of empty answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy_core.errors import UpstreamTimeout
from proxy_core.policies.model_call import ModelSpec, ModelUnavailable, ask, reply
from proxy_core.policies.testing import FakeServices, context_for
from proxy_core.transaction import WholeResponse
from proxy_core.wire.dialects import Operation
from tests.proxy_core.policies.asked_models import answered, refuses, says


async def asked(answer: WholeResponse | Exception, **spec: Any) -> tuple[str, dict[str, Any], bytes]:
    services = FakeServices([answer])
    chosen = ModelSpec(**{"upstream": "openai", "model": "judge-1"} | spec)
    text = await ask(context_for(services=services), chosen, system="Be brief.", user="Hi")
    return text, json.loads(services.sent[0]["body"]), services.sent[0]["target"]


async def test_openai() -> None:
    text, body, target = await asked(says("yes"))

    assert (text, target) == ("yes", b"/v1/chat/completions")
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert body == {"model": "judge-1", "messages": turns, "max_tokens": 256, "temperature": 0.0}


async def test_reasoning_models_of_openai_take_other_limits() -> None:
    _, body, _ = await asked(says("yes"), model="gpt-5-mini")

    assert body["max_completion_tokens"] == 256
    assert "temperature" not in body and "max_tokens" not in body


async def test_anthropic() -> None:
    text, body, target = await asked(says("yes", Operation.MESSAGES), upstream="anthropic", max_tokens=99, temperature=None)

    assert (text, target) == ("yes", b"/v1/messages")
    assert body == {
        "model": "judge-1",
        "max_tokens": 99,
        "system": "Be brief.",
        "messages": [{"role": "user", "content": "Hi"}],
    }


async def test_ollama() -> None:
    text, body, target = await asked(says("yes", Operation.OLLAMA_CHAT), upstream="ollama", temperature=0.5)

    assert (text, target) == ("yes", b"/api/chat")
    assert body["stream"] is False
    assert body["options"] == {"num_predict": 256, "temperature": 0.5}


async def test_the_cost_is_told() -> None:
    services = FakeServices([says("yes", cost_usd=0.25)])

    said = await reply(context_for(services=services), ModelSpec(upstream="openai", model="m"), system="", user="Hi")

    assert (said.text, said.cost_usd) == ("yes", 0.25)


@pytest.mark.parametrize(
    ("answer", "final"),
    [
        (UpstreamTimeout("too slow"), False),
        (refuses(429), False),
        (refuses(500), False),
        (refuses(401), True),
        (refuses(404), True),
        (answered(b"<html>busy</html>"), False),
        (answered(b'{"object": "nothing"}'), False),
        (answered(b'{"error": {"message": "later"}}'), False),
        (answered(b""), False),
    ],
)
async def test_what_goes_wrong_is_a_fault(answer: WholeResponse | Exception, final: bool) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await asked(answer)

    assert caught.value.final is final
    assert caught.value.reason == "judge_unavailable"


async def test_an_upstream_that_is_not_configured_is_one_too() -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await asked(says("yes"), upstream="elsewhere")

    assert caught.value.final
