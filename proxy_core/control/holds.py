"""The queue of what waits for a person. It lives in the gateway and needs no user interface.

A hold is decided at most once: by an operator, by its deadline, by the client's leaving, or by the end of the gateway; whoever
waits for it gets that one outcome. A retry of the same client with the same content joins the hold that its first try left, and
gets a decision that was made meanwhile, once. An approval takes effect when it is recorded, and binds to the hash of what was
shown. Times run by the loop's clock, so a changed wall clock moves no deadline.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from proxy_core.control.feed import FeedKind
from proxy_core.control.hold_edits import check_edit
from proxy_core.control.hold_state import Hold, JoinKey, Timer, hold_of_records, join_key, shortened
from proxy_core.control.hold_subject import HoldSubject, legible, shown_hash
from proxy_core.control.plane import ControlConflict, ControlInvalid, ControlNotFound, HoldInfo
from proxy_core.hold_record import HoldRecord, HoldStatus
from proxy_core.routing.reasons import Reason
from proxy_core.settings import HoldSettings
from proxy_core.transaction import HoldOutcome

log = logging.getLogger(__name__)

MAX_WAIT_S = 86_400.0
RECENT = 200
MAX_MESSAGE_CHARS = 2_000
GATEWAY = "luthien"
"""Who decided where no person did."""

_CAPPED = HoldOutcome(
    decision="deny", reason=Reason.HOLD_CAP_REACHED, message="too much is waiting for an operator already; try again later"
)


class Clock(Protocol):
    """The part of an event loop that the queue needs."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer: ...


class HoldQueue:
    """Every hold of one gateway."""

    def __init__(
        self,
        settings: HoldSettings,
        *,
        clock: Clock,
        wall: Callable[[], float],
        new_id: Callable[[int], str],
        publish: Callable[[FeedKind, HoldInfo], None],
        record: Callable[[HoldRecord], asyncio.Future[None] | None],
    ) -> None:
        """`wall` is Unix time in seconds. What `record` returns is done when the record is durable."""
        self.settings = settings
        self._clock = clock
        self._wall = wall
        self._new_id = new_id
        self._publish = publish
        self._record = record
        self._pending: dict[str, Hold] = {}
        self._recent: deque[HoldInfo] = deque(maxlen=RECENT)
        self._joinable: dict[JoinKey, list[Hold]] = {}
        """Holds that a retry may join: those that wait, and those decided while nobody was there to hear it."""
        self._per_key: Counter[str] = Counter()
        self._unrecorded: dict[str, asyncio.Future[None]] = {}
        """The last record of each hold that is not durable yet."""
        self._closed = False

    # --- from the policies ---

    async def hold(self, subject: HoldSubject, *, timeout_s: float, on_timeout: str) -> HoldOutcome:
        """Put the subject before the operator and wait for the outcome.

        Cancel the call where the client leaves: the hold then waits for that client's retry for `retry_grace_s`.
        """
        subject = legible(subject)
        shown = shown_hash(subject.stage, subject.tool, subject.content)
        if self._closed:
            return self._refused(subject, shown, self._at_shutdown())
        held = self._find(subject, shown)
        if held is None:
            if self._per_key[subject.key] >= self.settings.max_per_key or len(self._pending) >= self.settings.max_total:
                return self._refused(subject, shown, _CAPPED)
            held = self._begin(subject, shown, timeout_s, on_timeout)
        elif held.outcome is not None and held.id not in self._pending:
            return self._fetched(held, subject.transaction_id)
        else:
            self._join(held, subject.transaction_id)
        waiter: asyncio.Future[HoldOutcome] = asyncio.get_running_loop().create_future()
        held.waiters[waiter] = subject.transaction_id
        self._publish("held", self._info(held))
        try:
            outcome = await waiter
        except asyncio.CancelledError:
            self._left(held, waiter)
            raise
        held.delivered = True
        return outcome

    def no_retry(self, transaction_id: str) -> None:
        """The transaction is being ended on purpose: what it alone waits for is withdrawn as soon as it leaves."""
        for held in self._pending.values():
            if list(held.waiters.values()) == [transaction_id]:
                held.may_be_retried = False

    # --- from the operator ---

    def pending(self) -> list[HoldInfo]:
        """What waits, oldest first."""
        return [self._info(held) for held in self._pending.values() if held.is_pending]

    def recent(self) -> list[HoldInfo]:
        """The latest ones that no longer wait, newest first; of a long content the beginning."""
        return [self._info(held) for held in self._pending.values() if not held.is_pending] + list(reversed(self._recent))

    @property
    def pending_count(self) -> int:
        return sum(held.is_pending for held in self._pending.values())

    def decide(
        self, hold_id: str, *, decision: str, shown: str, edited: str | None = None, reason: str = "", who: str = "operator"
    ) -> HoldInfo:
        """`approve`, `edit` or `deny` what waits. Raises ControlNotFound, ControlConflict, ControlInvalid."""
        held = self._undecided(hold_id)
        if decision not in ("approve", "edit", "deny"):
            raise ControlInvalid("decision", f"'{decision}' is none of approve, edit, deny")
        if shown != held.shown:
            raise ControlConflict("this is not what is held: look at it again before you decide")
        if decision == "edit":
            if edited is None:
                raise ControlInvalid("edited", "give the new content")
            check_edit(held.subject, edited)
        elif edited is not None:
            raise ControlInvalid("edited", f"'{decision}' takes no new content; decide 'edit'")
        if edited == held.subject.content:
            edited = None
        message, who = reason[:MAX_MESSAGE_CHARS], who[:200]
        if decision == "deny":
            return self._end(
                held, "denied", HoldOutcome(decision="deny", reason=Reason.DENIED_BY_OPERATOR, message=message, who=who)
            )
        if edited is None:
            return self._end(held, "approved", HoldOutcome(decision="approve", reason=Reason.APPROVED, message=message, who=who))
        outcome = HoldOutcome(decision="edit", reason=Reason.APPROVED_EDITED, message=message, edited=edited, who=who)
        return self._end(held, "edited", outcome)

    def extend(self, hold_id: str, seconds: float, *, who: str = "operator") -> HoldInfo:
        """Give a hold more time, up to a day from now. Raises ControlNotFound, ControlConflict, ControlInvalid."""
        held = self._undecided(hold_id)
        if not (math.isfinite(seconds) and seconds > 0):
            raise ControlInvalid("seconds", "give a number of seconds above 0")
        held.deadline = min(held.deadline + seconds, self._clock.time() + MAX_WAIT_S)
        self._set_timer(held)
        self._note(held, message=f"{who[:200]} gave it {seconds:g} s more")
        info = self._info(held)
        self._publish("held", info)
        return info

    async def recorded(self, hold_id: str) -> None:
        """Wait until what was last done with the hold is durable."""
        if (writing := self._unrecorded.get(hold_id)) is not None:
            await asyncio.wait([writing])

    # --- life ---

    def restore(self, records: Iterable[HoldRecord]) -> None:
        """Take in what the journal has of holds, in any order.

        Clients of holds that waited when the gateway died are gone; such a hold waits for a retry for `retry_grace_s`,
        then it is withdrawn.
        """
        first: dict[str, HoldRecord] = {}
        last: dict[str, HoldRecord] = {}
        for one in sorted(records, key=lambda one: (one.at_ns, one.status != "pending", not one.content)):
            first.setdefault(one.id, one)
            last[one.id] = one
        for hold_id, newest in last.items():
            left_s = newest.deadline_ns / 1e9 - self._wall()
            held = hold_of_records(first[hold_id], newest, deadline=self._clock.time() + left_s)
            if not held.is_pending:
                self._recent.append(shortened(self._info(held)))
                continue
            self._add(held)
            intact = shown_hash(held.subject.stage, held.subject.tool, held.subject.content) == held.shown
            if intact and held.deadline > self._clock.time():
                self._set_timer(held)
                self._await_retry(held)
            else:
                self._withdraw(held)

    def shutdown(self) -> None:
        """End everything that waits, as `on_shutdown` says; what is held from now on ends at once."""
        self._closed = True
        for held in [one for one in self._pending.values() if one.is_pending]:
            if held.waiters:
                outcome = self._at_shutdown()
                self._end(held, "approved" if outcome.decision == "approve" else "denied", outcome)
            else:
                self._withdraw(held)
        for held in [one for ones in self._joinable.values() for one in ones]:
            self._forget(held)

    # --- how a hold begins ---

    def _find(self, subject: HoldSubject, shown: str) -> Hold | None:
        """The hold that a retry belongs to. A transaction never joins itself: its twin calls wait each for their own."""
        for held in self._joinable.get(join_key(subject, shown), ()):
            if subject.transaction_id not in held.waiters.values() and subject.transaction_id != held.transaction_id:
                return held
        return None

    def _begin(self, subject: HoldSubject, shown: str, timeout_s: float, on_timeout: str) -> Hold:
        now = self._wall()
        held = Hold(
            self._new_id(int(now * 1e3)),
            subject,
            shown,
            created_ns=int(now * 1e9),
            deadline=self._clock.time() + min(timeout_s, MAX_WAIT_S),
            on_timeout=on_timeout,
        )
        self._add(held)
        self._set_timer(held)
        self._note(held, first=True)
        return held

    def _add(self, held: Hold) -> None:
        self._pending[held.id] = held
        self._joinable.setdefault(held.join_key, []).append(held)
        self._per_key[held.subject.key] += 1

    def _join(self, held: Hold, transaction_id: str) -> None:
        if held.grace is not None:
            held.grace.cancel()
            held.grace = None
        held.may_be_retried = True
        if not held.waiters:
            held.transaction_id = transaction_id
        self._note(held, transaction_id=transaction_id, message="joined by a request with the same content")

    def _fetched(self, held: Hold, transaction_id: str) -> HoldOutcome:
        """Give a retry the decision that was made while nobody was there. It is given once."""
        assert held.outcome is not None  # noqa: S101 - the caller looked
        self._forget(held)
        held.delivered = True
        self._note(held, transaction_id=transaction_id, message="given to the retry that came after it")
        return held.outcome

    def _refused(self, subject: HoldSubject, shown: str, outcome: HoldOutcome) -> HoldOutcome:
        """An outcome at once: nothing is queued, and the record says why."""
        now_ns = int(self._wall() * 1e9)
        held = Hold(
            self._new_id(now_ns // 1_000_000), subject, shown, created_ns=now_ns, deadline=self._clock.time(), on_timeout="deny"
        )
        held.status = "approved" if outcome.decision == "approve" else "denied"
        held.decided_by, held.message = GATEWAY, outcome.message
        self._note(held)
        return outcome

    # --- how it ends ---

    def _undecided(self, hold_id: str) -> Hold:
        held = self._pending.get(hold_id)
        if held is not None and held.is_pending:
            return held
        ended = self._info(held) if held is not None else next((one for one in self._recent if one.id == hold_id), None)
        if ended is None:
            raise ControlNotFound(f"there is no hold '{hold_id}'")
        raise ControlConflict(f"already {ended.status} by {ended.decided_by}" if ended.decided_by else f"already {ended.status}")

    def _end(self, held: Hold, status: HoldStatus, outcome: HoldOutcome) -> HoldInfo:
        """The one place where a hold stops waiting. An approval by a person is released when its record is durable."""
        held.status, held.outcome, held.edited = status, outcome, outcome.edited
        held.decided_by, held.message = outcome.who or GATEWAY, outcome.message
        held.stop_timers()
        self._per_key[held.subject.key] -= 1
        if not self._per_key[held.subject.key]:
            del self._per_key[held.subject.key]
        info = self._info(held)
        durable = self._note(held)
        if durable is not None and outcome.who and outcome.decision != "deny":
            durable.add_done_callback(lambda _: self._release(held, info))
        else:
            self._release(held, info)
        return info

    def _release(self, held: Hold, info: HoldInfo) -> None:
        if held.id not in self._pending:
            return
        del self._pending[held.id]
        self._recent.append(shortened(info))
        self._publish("released", info)
        assert held.outcome is not None  # noqa: S101 - it has just ended
        for waiter in held.waiters:
            if not waiter.done():
                waiter.set_result(held.outcome)
        if held.waiters:
            self._no_longer_joinable(held)
        else:
            self._keep_for_retry(held)

    def _left(self, held: Hold, waiter: asyncio.Future[HoldOutcome]) -> None:
        """A client has left: nobody may be waiting now."""
        held.transaction_id = held.waiters.pop(waiter)
        if held.waiters:
            held.transaction_id = next(iter(held.waiters.values()))
            if held.is_pending:
                self._publish("held", self._info(held))
        elif held.delivered:
            return
        elif held.is_pending:
            self._await_retry(held)
        elif held.id not in self._pending:
            self._joinable.setdefault(held.join_key, []).append(held)
            self._keep_for_retry(held)

    def _await_retry(self, held: Hold) -> None:
        if self._closed or not held.may_be_retried:
            self._withdraw(held)
            return
        held.grace = self._clock.call_at(self._clock.time() + self.settings.retry_grace_s, self._withdraw, held)
        self._publish("held", self._info(held))

    def _keep_for_retry(self, held: Hold) -> None:
        """Remember what a person decided while nobody was there to hear it."""
        by_person = held.outcome is not None and held.outcome.who != ""
        if not by_person or not held.may_be_retried or self._closed:
            self._no_longer_joinable(held)
            return
        held.grace = self._clock.call_at(self._clock.time() + self.settings.retry_grace_s, self._forget, held)

    def _forget(self, held: Hold) -> None:
        if held.grace is not None and held.id not in self._pending:
            held.grace.cancel()
            held.grace = None
        self._no_longer_joinable(held)

    def _no_longer_joinable(self, held: Hold) -> None:
        ones = self._joinable.get(held.join_key, [])
        if held in ones:
            ones.remove(held)
        if not ones:
            self._joinable.pop(held.join_key, None)

    def _withdraw(self, held: Hold) -> None:
        if held.is_pending and not held.waiters:
            message = "the client left before anybody decided"
            self._end(held, "withdrawn", HoldOutcome(decision="deny", reason=Reason.HOLD_WITHDRAWN, message=message))

    def _expire(self, held: Hold) -> None:
        if not held.is_pending:
            return
        decision = "approve" if held.on_timeout == "approve" else "deny"
        self._end(held, "expired", HoldOutcome(decision=decision, reason=Reason.HOLD_EXPIRED, message="nobody decided in time"))

    def _at_shutdown(self) -> HoldOutcome:
        message = "luthien stopped before anybody decided"
        return HoldOutcome(decision=self.settings.on_shutdown, reason=Reason.HOLD_SHUTDOWN, message=message)

    def _set_timer(self, held: Hold) -> None:
        if held.timer is not None:
            held.timer.cancel()
        held.timer = self._clock.call_at(held.deadline, self._expire, held)

    def _deadline(self, held: Hold) -> float:
        """Unix time in seconds."""
        return self._wall() + held.deadline - self._clock.time()

    def _info(self, held: Hold) -> HoldInfo:
        return held.info(self._deadline(held))

    def _note(
        self, held: Hold, *, first: bool = False, transaction_id: str = "", message: str | None = None
    ) -> asyncio.Future[None] | None:
        """Append a record of how the hold stands."""
        record = held.record(
            at=self._wall(), deadline=self._deadline(held), first=first, transaction_id=transaction_id, message=message
        )
        writing = self._record(record)
        if writing is not None:
            self._unrecorded[held.id] = writing
            writing.add_done_callback(lambda done: self._written(held.id, done))
        return writing

    def _written(self, hold_id: str, done: asyncio.Future[None]) -> None:
        if self._unrecorded.get(hold_id) is done:
            del self._unrecorded[hold_id]
        if done.cancelled() or done.exception() is not None:
            log.error("hold %s: a record of it could not be written", hold_id)
