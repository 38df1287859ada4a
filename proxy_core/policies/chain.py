"""Chains of policies: built from settings, chosen for a transaction, run one policy after the other, each isolated.

A chain never changes once built; a change of settings builds another, so each transaction sees exactly one version, named by
its digest. Whatever a policy does (raise, hang, return junk, grow without bound) ends in its `on_error`, with a verdict that
says so. A policy that is off is not in what runs. A policy in shadow mode runs on a copy, in a task of its own.
"""

from __future__ import annotations

import asyncio
import fnmatch
import hashlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any

import msgspec
from msgspec import Struct

from proxy_core.errors import AdmissionRefused, ClientGone, ConfigurationError, LuthienError, UpstreamError
from proxy_core.policies.base import ControlPolicy, PolicyDenied, PolicyFault, Release
from proxy_core.policies.stepping import resumed, stepped
from proxy_core.routing.reasons import Reason
from proxy_core.settings import ChainSettings, PolicySettings, Selector, Settings
from proxy_core.tasks import spawn
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import SEVERITY, Mode, OnError, Stage, Verdict

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024 * 1024
"""A policy may not make a body larger than this."""
FAULT_HOLD_S = 600.0
SENDER = "send_backend_request"
"""Registry name of the policy in whose place the gateway itself sends."""


class Entry(Struct, frozen=True):
    """One policy in its place."""

    name: str
    use: str
    policy: ControlPolicy[Any]
    mode: Mode
    on_error: OnError
    deadline_s: float
    source: str = "file"
    """Where mode and parameters come from."""


class Override(Struct, frozen=True):
    """What an operator has set for one policy in place of the configuration's."""

    mode: Mode | None = None
    params: dict[str, Any] | None = None
    """All parameters, where any was changed."""
    source: str = "operator"


class Chain:
    """One chain, ready to run."""

    def __init__(self, entries: Iterable[Entry], *, name: str = "global", selector: Selector | None = None) -> None:
        self.name = name
        self.selector = selector
        self.entries = tuple(entries)
        self.digest = _digest(self.entries)
        self.live = tuple(one for one in self.entries if one.mode != "off")
        sending = [at for at, one in enumerate(self.entries) if one.policy.sends]
        enforced_sending = [at for at in sending if self.entries[at].mode == "enforce"]
        # A sender that rests still marks the place: what stands behind it acts on answers.
        send_at = (enforced_sending or sending or [len(self.entries)])[0]
        sender = self.entries[send_at] if enforced_sending else None
        self.sender = sender if sender is not None and sender.use != SENDER else None
        """The policy that gets the answer in place of the gateway; None where the gateway sends."""
        for at, one in enumerate(self.entries):
            one.policy.placed(before_send=at < send_at)
        before = [one for one in self.entries[:send_at] if one.mode != "off"]
        after = [one for one in self.entries[send_at + 1 :] if one.mode != "off"]
        self.request = tuple(one for one in before if one.policy.acts_on(Stage.REQUEST, before_send=True))
        self.response = tuple(
            one
            for place, ones in ((True, before), (False, after))
            for one in ones
            if not one.policy.sends and one.policy.acts_on(Stage.RESPONSE, before_send=place)
        )
        enforced = [one.policy.release_mode() for one in self.response if one.mode == "enforce"]
        self.release = Release.FULL if self.sender is not None else max(enforced, default=Release.PASS)
        self.idle = all(one.use == SENDER for one in self.live)
        """Whether nothing in it would run."""

    async def run_request(self, context: TransactionContext, shadows: Shadows) -> TransactionContext:
        """The policies before the send, and the sender if it is not the gateway. Raises PolicyDenied."""
        context.stage = Stage.REQUEST
        for entry in self.request:
            context = await _run(entry, context, shadows)
            if context.response_status is not None:
                return context  # answered here: nothing is sent
        if self.sender is not None:
            context = await _run(self.sender, context, shadows)
            if context.response_status is None:
                raise PolicyDenied(
                    Reason.POLICY_JUNK, f"policy '{self.sender.name}' should have sent the request and gave no answer"
                )
        return context

    async def run_response(self, context: TransactionContext, shadows: Shadows) -> TransactionContext:
        """The policies after the send, on a whole response. Raises PolicyDenied."""
        context.stage = Stage.RESPONSE
        for entry in self.response:
            context = await _run(entry, context, shadows)
        return context

    def close(self, context: TransactionContext, reason: Reason = Reason.NOT_RUN) -> None:
        """One verdict at least for every policy: of those that ran and said nothing, and of those whose turn did not come."""
        verdicts, passed = context.verdicts, context.passed
        heard = {verdict.policy for verdict in verdicts}
        if any("/" in name for name in heard):
            heard |= {name.partition("/")[0] for name in heard}
        for entry in self.live:
            name = entry.name
            if name in heard:
                continue
            ms = passed.get(name)
            if ms is not None:
                stage = Stage.REQUEST if entry in self.request else Stage.RESPONSE
                verdicts.append(Verdict(policy=name, stage=stage, mode=entry.mode, ms=round(ms, 4)))
            elif entry.use != SENDER:
                stage = Stage.REQUEST if entry in self.request else Stage.RESPONSE
                verdicts.append(Verdict(policy=name, stage=stage, mode=entry.mode, ran="skipped", reason=reason))


class Chains:
    """One version of all chains."""

    def __init__(self, default: Chain, others: Sequence[Chain] = ()) -> None:
        self.default = default
        self.others = tuple(others)
        self.digest = default.digest if not self.others else _hash([default.digest, *(one.digest for one in self.others)])
        self.idle = default.idle and all(one.idle for one in self.others)

    @property
    def all(self) -> tuple[Chain, ...]:
        return (self.default, *self.others)

    def choose(self, *, upstream: str, key: str, agent: str, session: str) -> Chain:
        """The first chain whose selector matches, else the global one."""
        for chain in self.others:
            wanted = chain.selector
            if wanted is not None and all(
                pattern is None or fnmatch.fnmatchcase(value, pattern)
                for pattern, value in (
                    (wanted.upstream, upstream),
                    (wanted.key, key),
                    (wanted.agent, agent),
                    (wanted.session, session),
                )
            ):
                return chain
        return self.default


def build_chains(settings: Settings, overrides: Mapping[str, Override] | None = None) -> Chains:
    """The chains of a configuration. Raises ConfigurationError, which names every fault and its place."""
    faults: list[str] = []
    seen: dict[str, str] = {}
    default = _build(settings.policies, "policies", settings, overrides or {}, seen, faults)
    others = [
        _build(one.policies, f"chains[{at}].policies", settings, overrides or {}, seen, faults, _title(one, at), one.match)
        for at, one in enumerate(settings.chains)
    ]
    if faults:
        raise ConfigurationError("\n".join(faults))
    return Chains(default, others)


def _build(
    policies: Sequence[PolicySettings],
    place: str,
    settings: Settings,
    overrides: Mapping[str, Override],
    seen: dict[str, str],
    faults: list[str],
    name: str = "global",
    selector: Selector | None = None,
) -> Chain:
    from proxy_core.policies.registry import build_policy

    entries: list[Entry] = []
    senders: list[str] = []
    for at, one in enumerate(policies):
        here = f"{place}[{at}]"
        override = overrides.get(one.name or one.use)
        params = one.params if override is None or override.params is None else override.params
        try:
            policy = build_policy(one.use, params, settings)
        except ConfigurationError as error:
            faults.extend(f"{here}.{line}" for line in str(error).splitlines())
            continue
        entry = Entry(
            name=one.name or policy.registry_name(),
            use=policy.registry_name(),
            policy=policy,
            mode=one.mode if override is None or override.mode is None else override.mode,
            on_error=one.on_error or policy.default_on_error,
            deadline_s=one.deadline_s or policy.default_deadline_s,
            source="file" if override is None else override.source,
        )
        policy.on_error = entry.on_error
        if entry.name in seen:
            faults.append(f"{here}.name: '{entry.name}' is used at {seen[entry.name]} too; give one of them another `name`")
        seen[entry.name] = here
        if policy.sends and entry.mode == "enforce":
            senders.append(entry.name)
            if len(senders) > 1:
                faults.append(f"{here}: only one policy of a chain can send; '{senders[0]}' does already")
        elif senders and not policy.acts_on(Stage.RESPONSE, before_send=False):
            faults.append(
                f"{here}: '{entry.name}' acts on requests only and stands after '{senders[0]}', which sends; move it up"
            )
        entries.append(entry)
    return Chain(entries, name=name, selector=selector)


def _title(one: ChainSettings, at: int) -> str:
    parts = [f"{name}={value}" for name, value in one.match.model_dump(exclude_none=True).items()]
    return " ".join(parts) or f"chain {at + 1}"


def _digest(entries: Iterable[Entry]) -> str:
    return _hash(
        [
            [one.name, one.use, one.mode, one.on_error, one.deadline_s, one.policy.params.model_dump(mode="json")]
            for one in entries
        ]
    )


def _hash(value: Any) -> str:
    return hashlib.blake2b(msgspec.json.encode(value, order="deterministic"), digest_size=8).hexdigest()


class Shadows:
    """The policies of one transaction that run in shadow mode, each on a copy, in a task of its own."""

    def __init__(self, late: Callable[[list[Verdict]], None]) -> None:
        self._late = late
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    def start(self, entry: Entry, context: TransactionContext) -> None:
        """Run `entry` on a copy of the context as it is now."""
        deadline_s = None if entry.policy.waits_for_people else entry.deadline_s
        self.add(entry, context, entry.policy.apply, deadline_s=deadline_s)

    def add(
        self,
        entry: Entry,
        context: TransactionContext,
        work: Callable[[TransactionContext], Coroutine[Any, Any, Any]],
        *,
        deadline_s: float | None,
        idle_s: Callable[[], float] = float,
    ) -> asyncio.Task[None]:
        """Run `work` on a copy of the context, as the policy's work. `idle_s` gives the time in it that is not its own."""
        copy = context.fork()
        copy.policy = entry.name
        task = spawn(self._run(entry, copy, context, work, deadline_s, idle_s), name=f"shadow {entry.name}")
        self._tasks.append(task)
        return task

    async def _run(
        self,
        entry: Entry,
        copy: TransactionContext,
        context: TransactionContext,
        work: Callable[[TransactionContext], Coroutine[Any, Any, Any]],
        deadline_s: float | None,
        idle_s: Callable[[], float],
    ) -> None:
        started = perf_counter()
        try:
            if _unsupported(entry, copy):
                copy.verdict("allow", Reason.UNSUPPORTED_DIALECT, ran="unsupported")
                return
            async with asyncio.timeout(deadline_s):
                await stepped(work(copy))
        except PolicyDenied as denied:
            _record_denial(copy, denied)
        except asyncio.CancelledError:
            copy.verdict("allow", Reason.NOT_RUN, "it was not finished when the transaction was", ran="partial")
        except BaseException as error:  # isolation: nothing that a policy does may reach the traffic
            fault = as_fault(entry, error)
            copy.verdict(entry.on_error, fault.reason, str(fault), ran="error")
        finally:
            ms = (perf_counter() - started - idle_s()) * 1e3
            verdicts = timed(copy.verdicts, ms) or [passed(entry, copy.stage, ms)]
            if self._closed:
                self._late(verdicts)
            else:
                context.verdicts.extend(verdicts)

    async def settle(self) -> None:
        """Give those that need not wait for anything their turn; the verdicts of others come late."""
        if any(not task.done() for task in self._tasks):
            await asyncio.sleep(0)
        self._closed = True

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _run(entry: Entry, context: TransactionContext, shadows: Shadows) -> TransactionContext:
    """One policy on one transaction. Raises PolicyDenied, ClientGone, and what a sending policy could not send."""
    if entry.mode == "shadow":
        shadows.start(entry, context)
        return context
    policy = entry.policy
    context.policy = entry.name
    if policy.operations is not None and context.operation not in policy.operations:
        context.verdict("allow", Reason.UNSUPPORTED_DIALECT, ran="unsupported")
        return context
    heard = len(context.verdicts)
    before = context.snapshot()
    started = perf_counter()
    work = policy.apply(context)
    try:
        try:
            pending = work.send(None)
        except StopIteration as done:
            result = done.value  # most policies never wait
        else:
            result = await _waited(entry, context, work, pending)
        if type(result) is not TransactionContext:
            raise PolicyFault(Reason.POLICY_JUNK, f"apply returned {type(result).__name__} in place of the transaction")
        if result.largest_body > MAX_BODY_BYTES:
            raise PolicyFault(Reason.POLICY_OVERSIZED, f"it made a body of more than {MAX_BODY_BYTES:,} bytes")
    except PolicyDenied as denied:
        if len(context.verdicts) == heard or context.verdicts[-1].action != "deny":
            _record_denial(context, denied)
        denied.policy = denied.policy or entry.name
        raise
    except ClientGone:
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return await _faulted(entry, context, before, PolicyFault(Reason.POLICY_ERROR, "it cancelled itself"))
    except UpstreamError as error:
        if policy.sends:
            context.verdict("allow", Reason.POLICY_ERROR, str(error), ran="error")
            raise
        return await _faulted(entry, context, before, as_fault(entry, error))
    except AdmissionRefused as error:
        if policy.sends:
            context.verdict("deny", Reason(error.reason), str(error))
            raise
        return await _faulted(entry, context, before, as_fault(entry, error))
    except BaseException as error:  # isolation: whatever a policy raises, its on_error decides
        if isinstance(error, KeyboardInterrupt):
            raise
        return await _faulted(entry, context, before, as_fault(entry, error))
    ms = (perf_counter() - started) * 1e3
    if len(result.verdicts) > heard:
        result.verdicts[heard:] = timed(result.verdicts[heard:], ms)
    else:
        result.passed[entry.name] = result.passed.get(entry.name, 0.0) + ms
    return result


async def _waited(entry: Entry, context: TransactionContext, work: Coroutine[Any, Any, Any], pending: Any) -> Any:
    """The rest of a policy's work, which waits for something, within the entry's deadline.

    The time of a person who was asked does not count.
    """
    if entry.policy.waits_for_people:
        return await resumed(work, pending)
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def check() -> None:
        nonlocal timer
        if context.services.waiting:
            timer = loop.call_later(entry.deadline_s, check)
        else:
            limit.reschedule(loop.time())

    timer = loop.call_later(entry.deadline_s, check)
    try:
        async with asyncio.timeout(None) as limit:
            return await resumed(work, pending)
    except TimeoutError as error:
        raise PolicyFault(Reason.POLICY_TIMEOUT, f"it did not finish within {entry.deadline_s:g} s") from error
    finally:
        timer.cancel()


async def _faulted(entry: Entry, context: TransactionContext, before: Any, fault: PolicyFault) -> TransactionContext:
    """Undo what the policy left half done and do what its `on_error` says."""
    before.restore()
    context = before.context
    context.policy = entry.name
    log.warning("policy %s failed on %s: %s: %s", entry.name, context.transaction_id, fault.reason, fault)
    await decide_fault(entry, context, fault)
    return context


async def decide_fault(entry: Entry, context: TransactionContext, fault: PolicyFault) -> None:
    """Do what `on_error` says. Returns where the transaction goes on; raises PolicyDenied where it does not."""
    if entry.on_error == "allow":
        context.verdict("allow", fault.reason, str(fault), ran="error")
        return
    words = f"policy '{entry.name}' could not decide, and denies in that case"
    if entry.on_error == "hold":
        context.verdict("hold", fault.reason, str(fault), ran="error")
        body = context.response_body if context.stage is Stage.RESPONSE else context.request_body
        outcome = await context.services.hold(
            context,
            stage=context.stage,
            why=f"{entry.name} failed: {fault}",
            content=body.decode("utf-8", "replace"),
            timeout_s=FAULT_HOLD_S,
            on_timeout="deny",
        )
        if outcome.decision == "approve":
            context.verdict("allow", outcome.reason)
            return
        words = outcome.message or f"policy '{entry.name}' could not decide, and nobody approved"
        context.verdict("deny", outcome.reason, words)
        raise PolicyDenied(outcome.reason, words, policy=entry.name)
    context.verdict("deny", fault.reason, str(fault), ran="error")
    raise PolicyDenied(fault.reason, words, policy=entry.name)


def as_fault(entry: Entry, error: BaseException) -> PolicyFault:
    """What went wrong, as a fault of the policy."""
    if isinstance(error, PolicyFault):
        return error
    if isinstance(error, TimeoutError):
        return PolicyFault(Reason.POLICY_TIMEOUT, f"it did not finish within {entry.deadline_s:g} s")
    if isinstance(error, MemoryError):
        return PolicyFault(Reason.POLICY_OVERSIZED, "it ran out of memory")
    if not isinstance(error, LuthienError):
        log.debug("policy %s raised", entry.name, exc_info=error)
    return PolicyFault(Reason.POLICY_ERROR, f"{type(error).__name__}: {error}"[:500])


def _unsupported(entry: Entry, context: TransactionContext) -> bool:
    return entry.policy.operations is not None and context.operation not in entry.policy.operations


def _record_denial(context: TransactionContext, denied: PolicyDenied) -> None:
    context.verdict("deny", denied.reason, str(denied), score=denied.score)


def passed(entry: Entry, stage: Stage, ms: float) -> Verdict:
    """The verdict of a policy that had nothing to say."""
    return Verdict(policy=entry.name, stage=stage, mode=entry.mode, ms=round(ms, 4))


def timed(verdicts: Sequence[Verdict], ms: float) -> list[Verdict]:
    """The same verdicts, the last of them with the time that the policy took."""
    if not verdicts:
        return []
    return [*verdicts[:-1], msgspec.structs.replace(verdicts[-1], ms=round(ms, 4))]


def worst(verdicts: Iterable[Verdict]) -> str:
    """The transaction's verdict: the severest that an enforcing policy gave."""
    action = "allow"
    for verdict in verdicts:
        if verdict.mode == "enforce" and SEVERITY[verdict.action] > SEVERITY[action]:
            action = verdict.action
    return action
