"""ToolCallPolicy: the base of policies that decide on each tool call of an answer.

A subclass gives `decide`, one call in, one decision out. The base does the rest, for whole answers and for streams: text
and thinking flow on at once; from the first tool call on everything is kept until the turn is over, while the decisions
already run side by side. Then comes one notice for the agent, if anything was blocked, then what was passed, in order and
byte for byte. A call whose decision fails gets the policy's `on_error`; it never counts as passed without being said so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Literal

from msgspec import Struct
from msgspec.structs import replace

from proxy_core.errors import ClientGone
from proxy_core.policies.base import ControlPolicy, Params, PolicyDenied, PolicyFault, Release
from proxy_core.policies.stepping import resumed
from proxy_core.routing.reasons import Reason
from proxy_core.tasks import spawn
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Action, Ran, Stage
from proxy_core.wire.conversation import (
    INSERTED,
    Block,
    EndEvent,
    OpaqueEvent,
    StopEvent,
    StreamEvent,
    TextBlock,
    TextDelta,
    ToolCallBlock,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from proxy_core.wire.dialects import Operation

MAX_SIDE_BY_SIDE = 8
"""Decisions of one turn that run at once."""
HOLD_TIMEOUT_S = 600.0
"""How long a call waits for a person where `on_error` is `hold`."""
_MAX_NAME_CHARS = 64
_WITH_TOOLS = frozenset({Operation.CHAT, Operation.RESPONSES, Operation.MESSAGES, Operation.OLLAMA_CHAT})
_WITHOUT_TOOLS = frozenset(
    {
        Operation.COMPLETIONS,
        Operation.OLLAMA_GENERATE,
        Operation.EMBEDDINGS,
        Operation.OLLAMA_EMBED,
        Operation.COUNT_TOKENS,
        Operation.MODELS,
    }
)


class ToolDecision(Struct, frozen=True):
    """What becomes of one tool call."""

    kind: Literal["allow", "block", "replace"]
    text: str = ""
    """Of `block`: what the agent reads in place of the call; empty for the usual notice."""
    arguments: str = ""
    """Of `replace`: the new arguments as JSON text."""


ALLOW = ToolDecision("allow")
BLOCK = ToolDecision("block")


class ToolCallPolicy(ControlPolicy[Params]):
    """Base of policies that decide on tool calls."""

    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.RESPONSE})
    operations: ClassVar[frozenset[Operation] | None] = _WITH_TOOLS | _WITHOUT_TOOLS
    release: ClassVar[Release | None] = Release.BLOCK
    decides_at_once: ClassVar[bool] = False
    """Whether `decide` never waits for anything: then it costs no task."""

    async def decide(self, context: TransactionContext, call: ToolCallBlock) -> ToolDecision:
        """Decide on one call and record a verdict through `say`. Several calls of a turn are decided side by side.

        The arguments are as the model gave them: perhaps no JSON, perhaps megabytes. Name and id may be empty or occur
        twice. Whatever is raised blocks this call alone, or does what `on_error` says; PolicyDenied denies the answer.
        """
        raise NotImplementedError

    def say(
        self,
        context: TransactionContext,
        call: ToolCallBlock,
        action: Action,
        reason: Reason,
        message: str = "",
        *,
        ran: Ran = "ran",
        score: float | None = None,
        **detail: object,
    ) -> None:
        """Record a verdict on one call."""
        context.verdict(
            action,
            reason,
            message,
            ran=ran,
            score=score,
            stage=Stage.TOOL_CALL,
            tool=call.name[:200],
            call_id=call.call_id[:200],
            **detail,
        )

    async def apply(self, context: TransactionContext) -> TransactionContext:
        """Decide on the calls of a whole answer."""
        status = context.response_status
        if status is None or status >= 400 or context.operation not in _WITH_TOOLS:
            return context
        answer = context.answer
        if answer is None or (answer.problem is not None and not answer.blocks and answer.error is None):
            raise PolicyFault(Reason.UNSUPPORTED_DIALECT, "the answer cannot be read, so its tool calls cannot be judged")
        calls = answer.tool_calls
        if not calls:
            return context
        limit = asyncio.Semaphore(MAX_SIDE_BY_SIDE)
        pending = [_Pending(self, context, call, limit) for call in calls]
        try:
            outcomes = [await one.outcome() for one in pending]
        finally:
            for one in pending:
                one.cancel()
        if any(outcome.decision.kind != "allow" for outcome in outcomes):
            context.edit_answer(_Edit(calls, outcomes))
        return context

    async def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        """Decide on the calls of a stream."""
        turn = _Turn(self, context)
        try:
            async for event in events:
                if turn.begun or isinstance(event, ToolCallStart | ToolCallDelta):
                    turn.take(event)
                    if isinstance(event, EndEvent) or (isinstance(event, StopEvent) and turn.whole):
                        for released in await turn.release():
                            yield released
                    continue
                if isinstance(event, OpaqueEvent) and event.kind in ("unreadable", "oversized"):
                    raise _unreadable_event()
                yield event
            for released in await turn.release():
                yield released
        finally:
            turn.cancel()

    async def decided(self, context: TransactionContext, call: ToolCallBlock) -> _Outcome:
        """`decide`, with what `on_error` says in place of a failure. Raises nothing."""
        try:
            if self.on_error == "hold" and not self.decides_at_once:
                async with asyncio.timeout(self.default_deadline_s):
                    return _Outcome(await self.decide(context, call))
            return _Outcome(await self.decide(context, call))
        except (PolicyDenied, ClientGone) as denied:
            return _Outcome(BLOCK, error=denied)
        except Exception as error:
            return await self._settle_fault(context, call, error)

    async def _settle_fault(self, context: TransactionContext, call: ToolCallBlock, error: Exception) -> _Outcome:
        if isinstance(error, PolicyFault):
            reason, message = error.reason, str(error)
        else:
            reason = Reason.POLICY_TIMEOUT if isinstance(error, TimeoutError) else Reason.POLICY_ERROR
            message = type(error).__name__
        if self.on_error == "hold" and not context.shadow:
            return await self._hold(context, call, reason, message)
        action: Action = self.on_error
        self.say(context, call, action, reason, message, ran="error")
        return _Outcome(ALLOW) if action == "allow" else _Outcome(BLOCK, unavailable=True)

    async def _hold(self, context: TransactionContext, call: ToolCallBlock, reason: Reason, message: str) -> _Outcome:
        await asyncio.sleep(0)  # what begins here may belong to the task that goes on with it
        schema = next((tool.parameters for tool in context.conversation.tools if tool.name == call.name), "")
        try:
            held = await context.services.hold(
                context,
                stage=Stage.TOOL_CALL,
                why=message,
                content=call.arguments,
                timeout_s=HOLD_TIMEOUT_S,
                on_timeout="deny",
                tool=call.name,
                call_id=call.call_id,
                tool_schema=schema,
            )
        except ClientGone as gone:
            return _Outcome(BLOCK, error=gone)
        except Exception as error:
            self.say(context, call, "deny", reason, f"{message}; holding failed too: {type(error).__name__}", ran="error")
            return _Outcome(BLOCK, unavailable=True)
        edited = held.edited if held.decision == "edit" else None
        action: Action = "modify" if edited is not None else "allow" if held.decision == "approve" else "deny"
        self.say(context, call, action, reason, message, ran="error", decision=held.decision, decided=held.reason.value)
        if edited is not None:
            return _Outcome(ToolDecision("replace", arguments=edited))
        if held.decision == "approve":
            return _Outcome(ALLOW)
        return _Outcome(ToolDecision("block", text=held.message), unavailable=not held.message)


def notice(blocked: Sequence[tuple[str, ToolDecision, bool]]) -> str:
    """What the agent reads of its blocked calls: name, decision, and whether the decision could not be had."""
    plain = [(name, failed) for name, decision, failed in blocked if not decision.text]
    lines = list(dict.fromkeys(decision.text for _, decision, _ in blocked if decision.text))
    if plain:
        names = ", ".join(f"`{shown_name(name)}`" for name, _ in plain)
        which = f"Tool call {names} was" if len(plain) == 1 else f"Tool calls {names} were"
        why = "blocked: policy evaluation unavailable" if any(failed for _, failed in plain) else "blocked by policy"
        lines.insert(0, f"[{which} {why}]")
    return "\n".join(lines)


def shown_name(name: str) -> str:
    """A tool's name as it may stand in a sentence: one line, no backticks, not too long."""
    clean = "".join(letter for letter in name if letter.isprintable() and letter != "`")
    return clean[:_MAX_NAME_CHARS] + "…" if len(clean) > _MAX_NAME_CHARS else clean or "(unnamed)"


def _unreadable_event() -> PolicyFault:
    return PolicyFault(Reason.UNSUPPORTED_DIALECT, "an event of the stream cannot be read, so it may hide a tool call")


class _Outcome(Struct, frozen=True):
    """What was decided on one call, and how."""

    decision: ToolDecision
    unavailable: bool = False
    """Whether the call is blocked because the decision failed."""
    error: Exception | None = None
    """What ends the whole answer."""


class _Pending:
    """One call whose decision runs."""

    def __init__(
        self, policy: ToolCallPolicy[Params], context: TransactionContext, call: ToolCallBlock, limit: asyncio.Semaphore
    ) -> None:
        self._outcome: _Outcome | None = None
        self._task: asyncio.Task[_Outcome] | None = None
        name = f"decide on a tool call of {context.transaction_id}"
        if not policy.decides_at_once:
            self._task = spawn(_limited(policy, context, call, limit), name=name)
            return
        work = policy.decided(context, call)
        try:
            waits_for = work.send(None)
        except StopIteration as done:
            self._outcome = done.value
        else:
            self._task = spawn(resumed(work, waits_for), name=name)

    async def outcome(self) -> _Outcome:
        outcome = self._outcome
        if outcome is None and self._task is not None:
            outcome = await self._task
        if outcome is None:
            raise PolicyFault(Reason.POLICY_JUNK, "the decision on a tool call is missing")
        if outcome.error is not None:
            raise outcome.error
        return outcome

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def _limited(
    policy: ToolCallPolicy[Params], context: TransactionContext, call: ToolCallBlock, limit: asyncio.Semaphore
) -> _Outcome:
    async with limit:
        return await policy.decided(context, call)


class _Call:
    """One call of a stream while its pieces arrive."""

    __slots__ = ("call_id", "name", "pending", "pieces", "replaced")

    def __init__(self, call_id: str, name: str) -> None:
        self.call_id = call_id
        self.name = name
        self.pieces: list[str] = []
        self.pending: _Pending | None = None
        """Set once the call is whole."""
        self.replaced = False
        """Whether its new arguments were given out."""


class _Turn:
    """What is kept of one turn, from its first tool call to its stop."""

    def __init__(self, policy: ToolCallPolicy[Params], context: TransactionContext) -> None:
        self._policy = policy
        self._context = context
        self._limit = asyncio.Semaphore(MAX_SIDE_BY_SIDE)
        self._held: list[tuple[StreamEvent, _Call | None]] = []
        self._calls: list[_Call] = []
        self._open: dict[int, _Call] = {}
        """The call at each index that has not ended."""
        self._latest: dict[int, _Call] = {}
        """The call at each index, ended or not."""

    @property
    def begun(self) -> bool:
        return bool(self._held)

    @property
    def whole(self) -> bool:
        """Whether every call that began has ended."""
        return not self._open

    def take(self, event: StreamEvent) -> None:
        """Keep an event, and begin to decide on a call that it makes whole."""
        call: _Call | None = None
        if isinstance(event, ToolCallStart):
            self._end(event.index)
            call = self._begin(event.index, event.call_id, event.name)
        elif isinstance(event, ToolCallDelta):
            call = self._open.get(event.index) or self._begin(event.index, "", "")
            call.pieces.append(event.arguments)
        elif isinstance(event, ToolCallEnd):
            call = self._latest.get(event.index)
            self._end(event.index)
        elif isinstance(event, OpaqueEvent) and event.kind in ("unreadable", "oversized"):
            raise _unreadable_event()
        self._held.append((event, call))

    def _begin(self, index: int, call_id: str, name: str) -> _Call:
        call = self._open[index] = self._latest[index] = _Call(call_id, name)
        self._calls.append(call)
        return call

    def _end(self, index: int) -> None:
        call = self._open.pop(index, None)
        if call is not None:
            block = ToolCallBlock(call.call_id, call.name, "".join(call.pieces))
            call.pieces = []
            call.pending = _Pending(self._policy, self._context, block, self._limit)

    async def release(self) -> list[StreamEvent]:
        """Wait for the decisions and give what goes on to the client."""
        for index in list(self._open):
            self._end(index)
        outcomes = {id(call): await call.pending.outcome() for call in self._calls if call.pending is not None}
        held, calls = self._held, self._calls
        self._held, self._calls = [], []
        if all(outcome.decision.kind == "allow" for outcome in outcomes.values()):
            return [event for event, _ in held]
        blocked = [
            (call.name, outcomes[id(call)].decision, outcomes[id(call)].unavailable)
            for call in calls
            if outcomes[id(call)].decision.kind == "block"
        ]
        released: list[StreamEvent] = [TextDelta(INSERTED, notice(blocked))] if blocked else []
        for event, call in held:
            decision = ALLOW if call is None else outcomes[id(call)].decision
            if call is None or decision.kind == "allow":
                released.append(event)
            elif decision.kind == "replace":
                released += _replaced(event, call, decision)
        return released

    def cancel(self) -> None:
        for call in self._calls:
            if call.pending is not None:
                call.pending.cancel()


def _replaced(event: StreamEvent, call: _Call, decision: ToolDecision) -> list[StreamEvent]:
    """An event of a call whose arguments are others now: they come in one piece, right after the start."""
    if isinstance(event, ToolCallEnd):
        return [replace(event, raw=b"")]
    if call.replaced:
        return []
    call.replaced = True
    if isinstance(event, ToolCallStart):
        return [event, ToolCallDelta(event.index, decision.arguments)]
    return [ToolCallDelta(event.index, decision.arguments)] if isinstance(event, ToolCallDelta) else []


class _Edit:
    """Puts the decisions into a whole answer: the notice stands before its first tool call."""

    def __init__(self, calls: Sequence[ToolCallBlock], outcomes: Sequence[_Outcome]) -> None:
        self._decisions: dict[tuple[str, str, str], list[ToolDecision]] = {}
        for call, outcome in zip(calls, outcomes, strict=True):
            self._decisions.setdefault((call.call_id, call.name, call.arguments), []).append(outcome.decision)
        blocked = [
            (call.name, outcome.decision, outcome.unavailable)
            for call, outcome in zip(calls, outcomes, strict=True)
            if outcome.decision.kind == "block"
        ]
        self._notice = notice(blocked) if blocked else ""

    def __call__(self, block: Block) -> Sequence[Block] | None:
        if not isinstance(block, ToolCallBlock):
            return None
        decisions = self._decisions.get((block.call_id, block.name, block.arguments))
        decision = decisions.pop(0) if decisions else BLOCK
        before: list[Block] = [TextBlock(self._notice)] if self._notice else []
        self._notice = ""
        if decision.kind == "block":
            return before
        if decision.kind == "replace":
            return [*before, replace(block, arguments=decision.arguments, raw=b"")]
        return [*before, block] if before else None
