"""A streamed answer on its way through the policies of a chain: bytes in, events through the policies, bytes out.

Each chunk is worked on at once, where it arrives, without a task switch; only a policy that waits for something (a judge, a
person) makes the transaction's task take over. What no policy touched leaves with its own bytes. A policy that fails, hangs
or returns junk gets its `on_error` while the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Generator, Sequence
from typing import Any

from proxy_core.errors import ClientGone, LuthienError, UpstreamInvalid
from proxy_core.policies.base import PolicyDenied, PolicyFault
from proxy_core.policies.chain import Entry, Shadows, as_fault, decide_fault
from proxy_core.policies.outgoing import Outgoing
from proxy_core.policies.shadow_stream import ShadowStream
from proxy_core.policies.stepping import Cut, resumed
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Verdict
from proxy_core.wire.codec import StreamDecoder
from proxy_core.wire.conversation import (
    EVENT_TYPES,
    Answer,
    EndEvent,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    ToolCallStart,
)
from proxy_core.wire.encoder import IllegalStream, StreamEncoder

log = logging.getLogger(__name__)

MAX_BACKLOG_BYTES = 64 * 1024 * 1024
"""What may wait in luthien of one stream, for a policy or a person."""
MAX_PRODUCED = 100_000
"""Events that the policies may make of what is there at one time."""
CLOSING_S = 2.0
# Before 3.12 current_task is a function in Python around this look-up, and too slow for every event.
_running_task = asyncio.tasks._current_tasks.get if sys.version_info < (3, 12) else asyncio.current_task  # type: ignore[attr-defined]
_CONTENT = frozenset({TextDelta, ThinkingDelta, ToolCallStart, ToolCallDelta})
_STARVED = object()


class IllegalOutput(UpstreamInvalid):
    """What the policies made of the stream cannot be said in its dialect."""


class _Starve:
    """Waits for the next events: by telling the driver, or, in a task of a policy's own, by a future."""

    __slots__ = ("pipeline",)

    def __init__(self, pipeline: StreamPipeline) -> None:
        self.pipeline = pipeline

    def __await__(self) -> Generator[Any, Any, None]:
        pipeline = self.pipeline
        if pipeline.driving or asyncio.current_task() is pipeline.task:
            yield _STARVED
        else:
            yield from pipeline.woken_later()


class StreamPipeline:
    """One stream. `feed` takes what comes, `take` gives what may go; `settle` waits for policies that wait."""

    def __init__(
        self,
        entries: Sequence[Entry],
        context: TransactionContext,
        *,
        decoder: StreamDecoder,
        encoder: StreamEncoder,
        shadows: Shadows,
        task: asyncio.Task[Any] | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.context = context
        self.task = task
        self._loop = loop
        self._decoder = decoder
        self._outgoing = Outgoing(encoder, context.operation)
        self._queue: deque[StreamEvent] = deque()
        self._backlog_bytes = 0
        self._over = False
        """Whether the upstream's last event is in the queue."""
        self.saw_end = False
        """Whether the dialect's terminator has come from the upstream."""
        self.driving = False
        """Whether policies run just now, step by step, outside of any waiting."""
        self._content_seen = False
        self.first_token_offset = 0
        """Bytes of the upstream's body before the event that carries the first token."""
        self._closed = False
        self._rest = b""
        self.ended = False
        """Whether nothing more will come out."""
        self.suspended = False
        """Whether a policy waits for something; then `settle` has to be awaited."""
        self.failure: LuthienError | None = None
        self.denied: PolicyDenied | None = None
        self.answer: Answer | None = None
        """What the upstream said, once `finish` was called."""
        self._passing: BaseException | None = None
        self._timed_out = -1
        self._pending: Any = None
        self._step: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_for = -1
        self._since = 0.0
        self._wakers: list[asyncio.Future[None]] = []
        self._starve = _Starve(self)
        self._waited: dict[str, float] = {}
        self._came: list[StreamEvent] | None = None
        """Everything that came, where a policy in shadow mode wants the whole answer."""
        self._entries: list[Entry] = []
        self._shadows: list[ShadowStream] = []
        self._generators: list[Any] = []
        self._guards: list[Any] = []
        outer: AsyncIterator[StreamEvent] = self._source()
        self._generators.append(outer)
        for entry in entries:
            if entry.mode == "shadow":
                shadow = ShadowStream(entry, context, shadows)
                self._shadows.append(shadow)
                if shadow.whole:
                    self._came = []
                outer = shadow.tap(outer)
            elif entry.policy.operations is not None and context.operation not in entry.policy.operations:
                context.view(entry.name).verdict("allow", Reason.UNSUPPORTED_DIALECT, ran="unsupported")
            else:
                outer = self._guard(len(self._entries), entry, context.view(entry.name), outer)
                self._guards.append(outer)
                self._entries.append(entry)
            self._generators.append(outer)
        self._outer = outer

    # --- from the gateway ---

    def feed(self, chunk: bytes) -> None:
        """Take a piece of the upstream's body and run the policies on what it completes."""
        if self.ended or self.failure is not None:
            return
        events = self._decoder.feed(chunk)
        self._backlog_bytes += len(chunk)
        if not events:
            return
        if self._came is not None:
            self._came += events
        self._outgoing.came(events)
        if type(events[-1]) is EndEvent:
            self.saw_end = True
        if not self._content_seen:
            self._note_content(events)
        self._queue.extend(events)
        if self._wakers:
            self._wake()
        if self.suspended:
            if self._backlog_bytes > MAX_BACKLOG_BYTES:
                self.failure = IllegalOutput(f"more than {MAX_BACKLOG_BYTES:,} bytes of this answer wait for a policy")
            return
        self._advance()

    def _note_content(self, events: Sequence[StreamEvent]) -> None:
        """Find where the answer's first token comes, in bytes from the beginning."""
        for event in events:
            if type(event) in _CONTENT:
                self._content_seen = True
                return
            self.first_token_offset += len(event.raw)

    def finish(self) -> None:
        """The upstream's body has ended."""
        rest = self._rest = self._decoder.rest
        self.answer = self._decoder.finish()
        self._over = True
        for shadow in self._shadows:
            shadow.came = self._came or []
        self._wake()
        if not self.suspended and not self.ended:
            self._advance()
        self._end(rest)

    def _end(self, rest: bytes = b"") -> None:
        """Once the policies have let everything go: what is owed, and the unfinished event of a stream that was cut."""
        if not self.ended or self.denied is not None or self.failure is not None or self._closed:
            return
        self._closed = True
        try:
            self._outgoing.end(self._rest or rest)
        except IllegalStream as error:
            self._stop(error)

    def take(self) -> bytes:
        """What may go to the client since the last call."""
        self._backlog_bytes = 0
        return self._outgoing.take()

    @property
    def has_output(self) -> bool:
        return self._outgoing.waiting

    @property
    def altered(self) -> bool:
        """Whether anything left otherwise than it came."""
        return self._outgoing.altered

    def heartbeat(self) -> bytes:
        """A sign of life that is legal at this place."""
        return self._outgoing.heartbeat()

    def refusal(self, text: str) -> bytes:
        """The bytes that end the stream legally with a refusal. Raises IllegalStream."""
        return self._outgoing.refusal(text)

    async def settle(self) -> None:
        """Wait for the policy that waits, and go on as far as the events that are there allow."""
        while self.suspended:
            self._watch(None)
            produced: list[StreamEvent] = []
            try:
                event = await resumed(self._step, self._pending, self._watch)
                if event is not None:
                    produced.append(event)
                    self._step = None
            except StopAsyncIteration:
                self._step = None
                self.ended = True
            except asyncio.CancelledError:
                self._step = None
                if self._timed_out < 0:
                    raise
                # It was told to stop and did not: what it holds is lost with it.
                late = self._entries[self._timed_out]
                self._take_back_cancellation()
                self._outlasted(late)
            except BaseException as error:
                self._step = None
                if isinstance(error, ClientGone | KeyboardInterrupt):
                    raise
                self._stop(error)
            finally:
                self._drop_timer()
            self.suspended = False
            if produced:
                self._emit(produced)
            if self.task is not None and self.task.cancelling():
                raise asyncio.CancelledError
            if not self.ended:
                self._advance()
        self._end()

    @property
    def _waiting(self) -> Entry:
        """The policy that waits just now."""
        return self._entries[self._waiting_at]

    @property
    def _waiting_at(self) -> int:
        """Its place: the guards around it have begun a step, those within have ended theirs."""
        return next((at for at, guard in enumerate(self._guards) if guard.ag_running), len(self._guards) - 1)

    def _watch(self, wanted: Any) -> bool:
        """Called with everything that a policy waits for; True where that is the upstream's next event.

        Each policy has its deadline from the moment at which it begins to wait.
        """
        if wanted is _STARVED:
            return True
        at = self._waiting_at
        if self._timer_for != at:
            self._drop_timer()
            self._timer_for = at
            self._since = time.perf_counter()
            entry = self._waiting
            if not entry.policy.waits_for_people:
                self._timer = self._loop.call_later(entry.deadline_s, self._expire, at)
        return False

    def _drop_timer(self) -> None:
        if self._timer_for >= 0:
            name = self._entries[self._timer_for].name
            self._waited[name] = self._waited.get(name, 0.0) + (time.perf_counter() - self._since) * 1e3
            self._timer_for = -1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self, at: int) -> None:
        """The policy's time is over: it hears of it as a cancellation, and its guard puts something in its place."""
        self._timer = None
        if self.context.services.waiting:  # the time of a person who was asked does not count
            self._timer = self._loop.call_later(self._waiting.deadline_s, self._expire, at)
        elif self.suspended and self.task is not None:
            self._timed_out = at
            self.task.cancel()

    def _outlasted(self, entry: Entry) -> None:
        """A policy was told to stop and did not: what it holds is lost with it."""
        words = f"policy '{entry.name}' could not decide, and did not stop when its time was over"
        self.context.view(entry.name).verdict("deny", Reason.POLICY_TIMEOUT, words, ran="error")
        self._stop(PolicyDenied(Reason.POLICY_TIMEOUT, words, policy=entry.name))

    def _take_back_cancellation(self) -> None:
        self._timed_out = -1
        if self.task is not None:
            self.task.uncancel()

    async def close(self) -> None:
        """End the policies' work, whatever it was doing: no generator is left open."""
        for shadow in self._shadows:
            shadow.close()
        finished = self.ended and self._passing is None and self.failure is None
        self.ended = True
        if finished and self._step is None:
            return
        try:
            async with asyncio.timeout(CLOSING_S):
                await self._interrupt()
                for generator in reversed(self._generators):
                    await generator.aclose()
        except (Exception, asyncio.CancelledError) as error:  # a policy's last words may fail; the stream is over all the same
            log.debug("closing a policy's stream: %r", error)

    async def _interrupt(self) -> None:
        """Stop the step that is under way."""
        step, self._step = self._step, None
        if step is None:
            return
        try:
            pending = step.throw(asyncio.CancelledError())
            await resumed(step, pending, _is_starved)
        except (StopIteration, StopAsyncIteration, asyncio.CancelledError):
            return

    def finish_verdicts(self) -> None:
        """Say of each policy that it ran, where it said nothing itself."""
        context = self.context
        whole = self.answer is not None and self.denied is None
        heard = {verdict.policy.partition("/")[0] for verdict in context.verdicts if verdict.stage != "request"}
        for entry in self._entries:
            name = entry.name
            ms = round(self._waited.get(name, 0.0), 3)
            if whole:
                context.passed[name] = context.passed.get(name, 0.0) + ms
            elif name not in heard:
                context.verdicts.append(Verdict(policy=name, stage=context.stage, mode="enforce", ran="partial", ms=ms))

    # --- the way of the events ---

    async def _source(self) -> AsyncIterator[StreamEvent]:
        queue = self._queue
        while True:
            while queue:
                yield queue.popleft()
            if self._over:
                return
            await self._starve

    async def _guard(
        self, at: int, entry: Entry, view: TransactionContext, inner: AsyncIterator[StreamEvent]
    ) -> AsyncIterator[StreamEvent]:
        """One policy's events, or what its `on_error` puts in their place."""
        given: list[StreamEvent] | None = [] if entry.on_error != "deny" else None
        known = EVENT_TYPES
        try:
            events = entry.policy.on_stream(view, inner if given is None else _remembering(inner, given))
            if hasattr(events, "aclose"):
                self._generators.insert(2 * at + 1, events)
            async for event in events:
                if type(event) not in known:
                    raise PolicyFault(Reason.POLICY_JUNK, f"on_stream gave {type(event).__name__} in place of an event")
                yield event
                if given:
                    given.clear()
            return
        except (GeneratorExit, Cut):
            raise
        except PolicyDenied as denied:
            if self._passing is not denied:
                self._passing = denied
                denied.policy = denied.policy or entry.name
                if not any(v.policy.partition("/")[0] == entry.name and v.action == "deny" for v in view.verdicts):
                    view.verdict("deny", denied.reason, str(denied), score=denied.score)
            raise
        except asyncio.CancelledError as error:
            if self._timed_out == at:
                self._take_back_cancellation()
                fault = as_fault(entry, TimeoutError())
            elif self.task is not None and self.task.cancelling():
                raise
            else:
                fault = PolicyFault(Reason.POLICY_ERROR, "it cancelled itself")
            fault.__cause__ = error
        except BaseException as error:  # isolation: whatever a policy raises, its on_error decides
            if error is self._passing or isinstance(error, ClientGone | KeyboardInterrupt):
                raise
            fault = as_fault(entry, error)
        try:
            await decide_fault(entry, view, fault)
        except BaseException as error:
            self._passing = error
            raise
        for event in given or ():
            yield event
        async for event in inner:
            yield event

    def _advance(self) -> None:
        """Run the policies until they want more events than there are, or wait for something."""
        entered = self.task is not None and _running_task(self._loop) is None
        if entered:
            asyncio.tasks._enter_task(self._loop, self.task)  # type: ignore[arg-type]
        produced: list[StreamEvent] = []
        self.driving = True
        step = self._step
        try:
            following = self._outer.__anext__
            while True:
                if step is None:
                    step = self._step = following()
                try:
                    wanted = step.send(None)
                except StopIteration as done:
                    produced.append(done.value)
                    step = self._step = None
                    if len(produced) > MAX_PRODUCED:
                        raise self._flood() from None
                    continue
                if wanted is not _STARVED:
                    self.suspended = True
                    self._pending = wanted
                break
        except StopAsyncIteration:
            self._step = None
            self.ended = True
        except BaseException as error:  # recorded by the guard of the policy that raised it
            if isinstance(error, KeyboardInterrupt):
                raise
            self._step = None
            if produced:
                self._emit(produced)
            produced = []
            self._stop(error)
        finally:
            self.driving = False
            if entered:
                asyncio.tasks._leave_task(self._loop, self.task)  # type: ignore[arg-type]
        if produced and self.failure is None:
            try:
                self._outgoing.leave(produced)
            except IllegalStream as error:
                self._stop(error)

    def _flood(self) -> PolicyDenied:
        """The end of a stream that a policy makes without end; which of them it is cannot be seen from outside."""
        names = ", ".join(entry.name for entry in self._entries)
        words = f"more than {MAX_PRODUCED:,} events came of one piece of the answer, from one of: {names}"
        for entry in self._entries[-1:]:
            self.context.view(entry.name).verdict("deny", Reason.POLICY_OVERSIZED, words, ran="error")
        return PolicyDenied(Reason.POLICY_OVERSIZED, "a policy made more of this answer than luthien takes")

    def _emit(self, events: list[StreamEvent]) -> None:
        if self.failure is not None:
            return
        try:
            self._outgoing.leave(events)
        except IllegalStream as error:
            self._stop(error)

    def _stop(self, error: BaseException) -> None:
        """Nothing more may come of the upstream's stream: end the client's in a form that it can read."""
        self.ended = True
        if isinstance(error, PolicyDenied):
            self.denied = error
            try:
                self._outgoing.refuse(str(error))
            except IllegalStream as illegal:
                self.failure = IllegalOutput(f"{illegal}")
        elif isinstance(error, IllegalStream):
            self.context.verdicts.append(
                Verdict(
                    policy="luthien",
                    stage=self.context.stage,
                    mode="enforce",
                    ran="error",
                    action="deny",
                    reason=Reason.ILLEGAL_OUTPUT,
                    message=str(error),
                )
            )
            self.failure = IllegalOutput(f"what the policies made of this answer is not legal: {error}")
        else:
            if not isinstance(error, LuthienError):
                log.error("a stream of policies failed", exc_info=error)
            self.failure = error if isinstance(error, LuthienError) else IllegalOutput(f"{type(error).__name__} in a policy")

    def woken_later(self) -> Generator[Any, Any, None]:
        waker: asyncio.Future[None] = self._loop.create_future()
        self._wakers.append(waker)
        yield from waker

    def _wake(self) -> None:
        for waker in self._wakers:
            if not waker.done():
                waker.set_result(None)
        self._wakers.clear()


async def _remembering(inner: AsyncIterator[StreamEvent], given: list[StreamEvent]) -> AsyncIterator[StreamEvent]:
    """The same events, noted until the policy has given something for them."""
    async for event in inner:
        given.append(event)
        yield event


def _is_starved(wanted: Any) -> bool:
    return wanted is _STARVED
