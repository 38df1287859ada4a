"""For tests of policies, luthien's own and yours: traffic in, verdicts and bytes out, without a gateway or a network.

    context = context_for(Operation.CHAT, text="my key is sk-…")
    outcome = await run_request(MyPolicy(MyPolicy.params_model()), context)
    assert outcome.verdict.action == "deny"

The policy runs as in the gateway, as the only one of a chain: what it raises ends in its `on_error`, and verdicts say so.
`assert_chunking_invariant` proves that a text policy gives the same text wherever a stream is cut.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from proxy_core.errors import UnknownUpstream, UpstreamUnreachable
from proxy_core.policies.base import ControlPolicy, PolicyDenied, PolicyParams, Release
from proxy_core.policies.chain import Chain, Entry, Shadows
from proxy_core.policies.sample_bodies import ANTHROPIC, OLLAMA, STREAMED, answer_body, answer_stream, request_body
from proxy_core.policies.send_backend_request import SendBackendRequestPolicy
from proxy_core.policies.streaming import StreamPipeline
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import HoldOutcome, RawHeaders, Route, TransactionContext, WholeResponse
from proxy_core.verdicts import Mode, OnError, Stage, Verdict
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Answer
from proxy_core.wire.dialects import Dialect, Operation
from proxy_core.wire.encoder import encoder_for

__all__ = [
    "STREAMED",
    "FakeServices",
    "Outcome",
    "answer_body",
    "answer_stream",
    "assert_chunking_invariant",
    "chunking_strategy",
    "chunkings",
    "context_for",
    "request_body",
    "run_request",
    "run_response",
]

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_PATHS = {
    Operation.CHAT: "/v1/chat/completions",
    Operation.COMPLETIONS: "/v1/completions",
    Operation.EMBEDDINGS: "/v1/embeddings",
    Operation.RESPONSES: "/v1/responses",
    Operation.MODELS: "/v1/models",
    Operation.MESSAGES: "/v1/messages",
    Operation.COUNT_TOKENS: "/v1/messages/count_tokens",
    Operation.OLLAMA_CHAT: "/api/chat",
    Operation.OLLAMA_GENERATE: "/api/generate",
    Operation.OLLAMA_EMBED: "/api/embed",
    Operation.OTHER: "/v1/files",
}


class Outcome(Struct, frozen=True):
    """What became of a transaction."""

    context: TransactionContext
    body: bytes
    """The request as it would be sent, or the answer as the client gets it."""
    verdicts: list[Verdict]
    """What the policy said; one that said nothing has `passed`, one that does not act here was `skipped`."""
    denied: PolicyDenied | None = None
    answer: Answer | None = None
    """The answer as the client reads it; None of a request."""

    @property
    def verdict(self) -> Verdict:
        """The only verdict. Raises AssertionError where there are none or several."""
        if len(self.verdicts) != 1:
            raise AssertionError(f"{len(self.verdicts)} verdicts in place of one: {self.verdicts}")
        return self.verdicts[0]

    @property
    def text(self) -> str:
        """The answer's text; of a request, all its texts, one a line."""
        if self.answer is not None:
            return self.answer.text
        texts: list[str] = []
        self.context.edit_request_texts(lambda part: texts.append(part.text))
        return "\n".join(texts)


class FakeServices:
    """Stands for the gateway: gives prepared answers and decisions, and keeps what was asked of it."""

    waiting = False

    def __init__(
        self,
        answers: Sequence[WholeResponse | Exception] = (),
        *,
        holds: Sequence[HoldOutcome] = (),
        upstreams: Mapping[str, tuple[Dialect, str]] | None = None,
    ) -> None:
        self.answers = list(answers)
        self.holds = list(holds)
        self.upstreams = upstreams or {
            "openai": (Dialect.OPENAI, "https://api.openai.com"),
            "anthropic": (Dialect.ANTHROPIC, "https://api.anthropic.com"),
            "ollama": (Dialect.OLLAMA, "http://localhost:11434"),
        }
        """Dialect and root by name."""
        self.sent: list[dict[str, Any]] = []
        """One entry for each send: `upstream`, `target`, `body`, `headers`."""
        self.held: list[dict[str, Any]] = []

    async def send(
        self, context: TransactionContext, *, upstream: str | None = None, target: bytes | None = None, body: bytes | None = None
    ) -> WholeResponse:
        self.sent.append(
            {
                "upstream": upstream or context.route.upstream,
                "target": target or context.target,
                "body": context.request_body if body is None else body,
                "headers": list(context.request_headers),
            }
        )
        if not self.answers:
            raise UpstreamUnreachable("no answer was prepared for this test")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def hold(self, context: TransactionContext, *, timeout_s: float, on_timeout: str, **what: Any) -> HoldOutcome:
        self.held.append({"timeout_s": timeout_s, "on_timeout": on_timeout, **what})
        return self.holds.pop(0) if self.holds else HoldOutcome(decision="deny", reason=Reason.HOLD_EXPIRED)

    def upstream_dialect(self, name: str) -> Dialect:
        if name not in self.upstreams:
            raise UnknownUpstream(f"no upstream is called {name!r}")
        return self.upstreams[name][0]

    def upstream_at(self, url: str) -> str | None:
        wanted = url.rstrip("/").removesuffix("/v1").removesuffix("/api")
        return next((name for name, (_, root) in self.upstreams.items() if root == wanted), None)

    def secrets(self, context: TransactionContext) -> tuple[bytes, ...]:
        from proxy_core.detectors.secrets import known_secrets

        return known_secrets(context.request_headers, b"")


def context_for(
    operation: Operation = Operation.CHAT,
    body: bytes | None = None,
    *,
    text: str = "Hello",
    stream: bool = False,
    headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),),
    upstream: str = "",
    services: FakeServices | None = None,
    key: str = "",
) -> TransactionContext:
    """A transaction before the send: `body`, or a usual request of the operation in which a user says `text`."""
    dialect = Dialect.ANTHROPIC if operation in ANTHROPIC else Dialect.OLLAMA if operation in OLLAMA else Dialect.OPENAI
    return TransactionContext(
        transaction_id="t-1",
        dialect=dialect,
        operation=operation,
        method="POST",
        target=_PATHS[operation].encode("ascii"),
        headers=list(headers),
        body=request_body(operation, text, stream=stream) if body is None else body,
        stream=stream,
        route=Route(upstream or dialect.value, Reason.DEFAULT, dialect),
        services=services or FakeServices(),
        key=key,
    )


async def run_request(
    policy: ControlPolicy[Any], context: TransactionContext, *, mode: Mode = "enforce", on_error: OnError | None = None
) -> Outcome:
    """Run the policy on a request, as the gateway does before it sends."""
    chain, denied = Chain([_entry(policy, mode, on_error)]), None
    earlier, late = _fresh(context), list[Verdict]()
    shadows = _Shadows(late.extend)
    try:
        context = await chain.run_request(context, shadows)
    except PolicyDenied as error:
        denied = error
    verdicts = await _verdicts(chain, context, shadows, earlier, late)
    return Outcome(context, context.request_body, verdicts, denied)


async def run_response(
    policy: ControlPolicy[Any],
    context: TransactionContext | None = None,
    *,
    text: str = "",
    pieces: Sequence[str] | None = None,
    body: bytes | None = None,
    stream: bool = False,
    status: int = 200,
    mode: Mode = "enforce",
    on_error: OnError | None = None,
    chunk_bytes: int = 0,
) -> Outcome:
    """Run the policy on an answer, as the gateway does after the send.

    The answer is `body`, or a usual one of the operation that says `text`; with `stream` a stream whose text comes in
    `pieces`, fed in chunks of `chunk_bytes` (0: one chunk for all). A policy that cannot see streams, or holds the
    whole back, gets a stream's whole body, as in the gateway.
    """
    context = context or context_for(stream=stream)
    if body is None:
        parts = [text] if pieces is None else pieces
        body = answer_stream(context.operation, parts) if stream else answer_body(context.operation, "".join(parts))
    content_type = b"application/json"
    if stream:
        content_type = b"application/x-ndjson" if context.operation in OLLAMA else b"text/event-stream"
    context.stream = stream
    context.stage = Stage.RESPONSE
    place = [] if policy.acts_on(Stage.RESPONSE, before_send=True) else [_entry(SendBackendRequestPolicy(PolicyParams()))]
    chain = Chain([*place, _entry(policy, mode, on_error)])
    earlier, late = _fresh(context), list[Verdict]()
    shadows = _Shadows(late.extend)
    headers: RawHeaders = [(b"content-type", content_type)]
    if stream and policy.streams() and chain.release < Release.FULL:
        context.set_response(status, headers, b"")
        out, denied = await _run_stream(chain, context, body, shadows, chunk_bytes)
        context.response_body = out
    else:
        context.set_response(status, headers, body)
        denied = None
        try:
            context = await chain.run_response(context, shadows)
        except PolicyDenied as error:
            denied = error
    verdicts = await _verdicts(chain, context, shadows, earlier, late)
    return Outcome(context, context.response_body, verdicts, denied, context.answer)


class _Shadows(Shadows):
    """Runs in shadow mode that are waited for, so that a test sees their verdicts."""

    def __init__(self, late: Callable[[list[Verdict]], None]) -> None:
        super().__init__(late)
        self._begun: list[asyncio.Task[None]] = []

    def add(self, *what: Any, **more: Any) -> asyncio.Task[None]:
        task = super().add(*what, **more)
        self._begun.append(task)
        return task

    async def finish(self) -> None:
        await asyncio.gather(*self._begun)
        await self.settle()


def _fresh(context: TransactionContext) -> list[Verdict]:
    """Begin a new list of verdicts; give those that were said before."""
    earlier, context.verdicts, context.passed = context.verdicts, [], {}
    return earlier


async def _verdicts(
    chain: Chain, context: TransactionContext, shadows: _Shadows, earlier: list[Verdict], late: list[Verdict]
) -> list[Verdict]:
    """What was said of this run, as the gateway completes it."""
    await shadows.finish()
    context.verdicts += late
    chain.close(context)
    new = context.verdicts
    context.verdicts = earlier + new
    return new


async def _run_stream(
    chain: Chain, context: TransactionContext, body: bytes, shadows: Shadows, chunk_bytes: int
) -> tuple[bytes, PolicyDenied | None]:
    codec, encoder = codec_for(context.operation), encoder_for(context.operation)
    if codec is None or encoder is None:
        raise ValueError(f"luthien reads no streams of {context.operation.value}")
    pipeline = StreamPipeline(
        chain.response,
        context,
        decoder=codec.stream_decoder(),
        encoder=encoder,
        shadows=shadows,
        task=asyncio.current_task(),
        loop=asyncio.get_running_loop(),
    )
    size = chunk_bytes or len(body) or 1
    out = b""
    try:
        for start in range(0, len(body), size):
            pipeline.feed(body[start : start + size])
            await pipeline.settle()
            out += pipeline.take()
        pipeline.finish()
        await pipeline.settle()
        out += pipeline.take()
    finally:
        await pipeline.close()
        pipeline.finish_verdicts()
    if pipeline.failure is not None:
        raise pipeline.failure
    return out, pipeline.denied


def _entry(policy: ControlPolicy[Any], mode: Mode = "enforce", on_error: OnError | None = None) -> Entry:
    policy.on_error = on_error or policy.default_on_error
    return Entry(policy.registry_name(), policy.registry_name(), policy, mode, policy.on_error, policy.default_deadline_s)


# --- the same result for every cut ---


def chunkings(text: str, *, seed: int = 0) -> Iterator[list[str]]:
    """Ways to cut a text: whole, letter by letter, in even pieces, in two at each place, and at random. Never empty pieces."""
    yield [text]
    if len(text) < 2:
        return
    for size in (1, 2, 3, 5, 7):
        yield [text[start : start + size] for start in range(0, len(text), size)]
    for cut in range(1, len(text), max(1, len(text) // 100)):
        yield [text[:cut], text[cut:]]
    chance = random.Random(seed)  # noqa: S311 - no secret depends on it
    for _ in range(20):
        cuts = sorted(chance.sample(range(1, len(text)), chance.randint(1, min(len(text) - 1, 12))))
        yield [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def chunking_strategy(text: str) -> SearchStrategy[list[str]]:
    """Ways to cut a text, as a strategy of Hypothesis, which must be installed."""
    from hypothesis import strategies as st

    def cut(places: list[int]) -> list[str]:
        cuts = sorted(set(places))
        return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    return st.lists(st.integers(1, max(1, len(text) - 1)), max_size=12).map(cut) if len(text) > 1 else st.just([text])


def assert_chunking_invariant(
    policy: ControlPolicy[Any], text: str, *, operation: Operation = Operation.CHAT, chunks: Sequence[Sequence[str]] | None = None
) -> str:
    """Assert that the policy makes the same of an answer in a whole and of each cut of it, streamed; give the text.

    May be called with or without a running event loop. Raises AssertionError that names the first cut that differs.
    """
    return _finished(_assert_invariant(policy, text, operation, list(chunks or chunkings(text))))


async def _assert_invariant(policy: ControlPolicy[Any], text: str, operation: Operation, chunks: Sequence[Sequence[str]]) -> str:
    whole = await run_response(policy, context_for(operation), text=text)
    expected = (whole.text, str(whole.denied), sorted(map(_said, whole.verdicts)))
    for pieces in chunks:
        outcome = await run_response(policy, context_for(operation, stream=True), pieces=pieces, stream=True)
        found = (outcome.text, str(outcome.denied), sorted(map(_said, outcome.verdicts)))
        if found != expected and not (whole.denied and outcome.denied):
            raise AssertionError(f"cut as {pieces!r}, {operation.value} gives\n{found!r}\nin place of\n{expected!r}")
    return whole.text


def _said(verdict: Verdict) -> tuple[str, str, str, str]:
    return verdict.action, verdict.reason, verdict.ran, json.dumps(verdict.detail, sort_keys=True, default=str)


_T = TypeVar("_T")


def _finished(work: Coroutine[Any, Any, _T]) -> _T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
