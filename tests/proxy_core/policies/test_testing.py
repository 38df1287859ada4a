"""What is offered for tests of policies tells right from wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.errors import UnknownUpstream, UpstreamUnreachable
from proxy_core.policies.base import ControlPolicy, PolicyDenied, PolicyParams
from proxy_core.policies.testing import (
    STREAMED,
    FakeServices,
    answer_body,
    answer_stream,
    assert_chunking_invariant,
    chunking_strategy,
    chunkings,
    context_for,
    request_body,
    run_request,
    run_response,
)
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import StreamEvent, TextBlock, TextDelta
from proxy_core.wire.dialects import Dialect, Operation


class ShoutsInPieces(ControlPolicy[PolicyParams]):
    """Looks at pieces alone, so a cut changes what it does."""

    async def apply(self, context: TransactionContext) -> TransactionContext:
        context.edit_answer(lambda block: [TextBlock(block.text.title())] if isinstance(block, TextBlock) else None)
        return context

    async def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        async for event in events:
            yield TextDelta(event.index, event.text.title()) if isinstance(event, TextDelta) else event


class Broken(ControlPolicy[PolicyParams]):
    """Fails."""

    async def apply(self, context: TransactionContext) -> TransactionContext:
        raise ValueError("broken")


class Refuses(ControlPolicy[PolicyParams]):
    """Denies."""

    async def apply(self, context: TransactionContext) -> TransactionContext:
        raise PolicyDenied(Reason.POLICY_DECISION, "no")


def test_a_policy_that_depends_on_the_cut_is_found_out() -> None:
    with pytest.raises(AssertionError, match="cut as"):
        assert_chunking_invariant(ShoutsInPieces(PolicyParams()), "hello world")


async def test_it_can_be_asserted_inside_a_running_loop_too() -> None:
    with pytest.raises(AssertionError, match="cut as"):
        assert_chunking_invariant(ShoutsInPieces(PolicyParams()), "hello world", chunks=[["hel", "lo world"]])
    assert assert_chunking_invariant(ShoutsInPieces(PolicyParams()), "hello world", chunks=[["hello ", "world"]]) == "Hello World"


@given(st.text(max_size=40), st.data())
def test_cuts_lose_and_invent_nothing(text: str, data: st.DataObject) -> None:
    for pieces in [*chunkings(text), data.draw(chunking_strategy(text))]:
        assert "".join(pieces) == text
        assert all(pieces) or text == ""


@pytest.mark.parametrize("operation", STREAMED)
def test_usual_bodies_are_what_the_codecs_read(operation: Operation) -> None:
    codec = codec_for(operation)
    assert codec is not None
    conversation = codec.read_request(request_body(operation, "Grüße", system="s", stream=True))
    assert conversation.problem is None
    assert codec.read_response(answer_body(operation, "Grüße")).text == "Grüße"
    decoder = codec.stream_decoder()
    decoder.feed(answer_stream(operation, ["Grü", "ße"]))
    answer = decoder.finish()
    assert (answer.text, answer.complete, answer.problem) == ("Grüße", True, None)


async def test_what_a_policy_raises_ends_as_in_the_gateway() -> None:
    refused = await run_request(Refuses(PolicyParams()), context_for())
    assert refused.denied is not None
    assert (refused.verdict.action, refused.verdict.reason) == ("deny", "policy_decision")
    failed = await run_request(Broken(PolicyParams()), context_for())
    assert failed.denied is not None
    assert (failed.verdict.ran, failed.verdict.reason) == ("error", "policy_error")
    let_go = await run_request(Broken(PolicyParams()), context_for(), on_error="allow")
    assert (let_go.denied, let_go.verdict.ran) == (None, "error")
    shadow = await run_request(Refuses(PolicyParams()), context_for(), mode="shadow")
    assert (shadow.denied, shadow.verdict.mode, shadow.verdict.action) == (None, "shadow", "deny")


async def test_several_runs_on_one_transaction_each_have_their_verdicts() -> None:
    context = context_for()
    first = await run_request(Broken(PolicyParams()), context, on_error="allow")
    second = await run_response(Broken(PolicyParams()), context, text="x", on_error="allow")
    assert (first.verdict.stage, second.verdict.stage) == ("request", "response")
    assert context.verdicts == [first.verdict, second.verdict]
    with pytest.raises(AssertionError, match="0 verdicts"):
        type(first)(context, b"", []).verdict  # noqa: B018


async def test_fake_services_give_what_was_prepared() -> None:
    services = FakeServices()
    with pytest.raises(UpstreamUnreachable):
        await services.send(context_for(services=services))
    assert services.sent[0]["upstream"] == "openai"
    assert services.upstream_dialect("ollama") is Dialect.OLLAMA
    with pytest.raises(UnknownUpstream):
        services.upstream_dialect("nowhere")
    assert services.upstream_at("https://api.openai.com/v1/") == "openai"
    assert services.upstream_at("https://evil.example") is None
