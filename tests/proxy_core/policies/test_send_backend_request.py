"""The request is sent as it stands, and the answer becomes the transaction's."""

from __future__ import annotations

import pytest

from proxy_core.errors import UpstreamUnreachable
from proxy_core.policies.base import PolicyParams
from proxy_core.policies.chain import build_chains
from proxy_core.policies.send_backend_request import SendBackendRequestPolicy
from proxy_core.policies.testing import FakeServices, answer_body, context_for
from proxy_core.settings import PolicySettings, Settings
from proxy_core.transaction import WholeResponse
from proxy_core.wire.dialects import Operation


async def test_run_by_hand_it_sends_and_takes_the_answer() -> None:
    body = answer_body(Operation.CHAT, "hi")
    services = FakeServices([WholeResponse(status=200, headers=[(b"x-request-id", b"1")], body=body, upstream="openai")])
    context = context_for(text="hello", services=services)
    assert context.response is None
    context = await SendBackendRequestPolicy(PolicyParams()).apply(context)
    assert context.response is not None
    assert (context.response.status_code, context.response.content) == (200, body)
    assert context.answer is not None
    assert context.answer.text == "hi"
    assert services.sent[0]["body"] == context.request_body


async def test_an_upstream_that_cannot_be_reached_is_the_upstreams_error() -> None:
    with pytest.raises(UpstreamUnreachable):
        await SendBackendRequestPolicy(PolicyParams()).apply(context_for())


def test_in_a_chain_it_marks_the_place_of_the_send() -> None:
    settings = Settings(
        policies=[
            PolicySettings(use="noop", name="a"),
            PolicySettings(use="send_backend_request"),
            PolicySettings(use="noop", name="b"),
        ]
    )
    chain = build_chains(settings).default
    assert [entry.name for entry in chain.request] == ["a"]
    assert [entry.name for entry in chain.response] == ["b"]
    assert chain.sender is None  # the gateway itself sends there, so answers stream
