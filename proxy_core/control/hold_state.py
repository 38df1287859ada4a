"""One hold: what is held, who waits for it, how it stands; and how that reads for the operator and in the journal."""

from __future__ import annotations

import asyncio
from typing import Protocol

from msgspec.structs import replace

from proxy_core.control.hold_subject import HoldSubject
from proxy_core.control.plane import HoldInfo
from proxy_core.hold_record import HoldRecord, HoldStatus
from proxy_core.transaction import HoldOutcome
from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Operation

JoinKey = tuple[str, str, str, str, str]
"""Client key, policy, stage, target and hash of what is shown."""
RECENT_CONTENT_CHARS = 20_000
"""What is kept in memory of the content of a hold that no longer waits."""


def join_key(subject: HoldSubject, shown: str) -> JoinKey:
    return subject.key, subject.policy, subject.stage.value, subject.target, shown


class Timer(Protocol):
    def cancel(self) -> None: ...


class Hold:
    """One hold while it waits, and after. The queue alone changes it."""

    __slots__ = (
        "created_ns",
        "deadline",
        "decided_by",
        "delivered",
        "edited",
        "grace",
        "id",
        "join_key",
        "may_be_retried",
        "message",
        "on_timeout",
        "outcome",
        "shown",
        "status",
        "subject",
        "timer",
        "transaction_id",
        "waiters",
    )

    def __init__(
        self, hold_id: str, subject: HoldSubject, shown: str, *, created_ns: int, deadline: float, on_timeout: str
    ) -> None:
        self.id = hold_id
        self.subject = subject
        self.shown = shown
        self.join_key: JoinKey = join_key(subject, shown)
        self.created_ns = created_ns
        self.deadline = deadline
        """By the loop's clock."""
        self.on_timeout = on_timeout
        self.status: HoldStatus = "pending"
        self.outcome: HoldOutcome | None = None
        self.decided_by = ""
        self.message = ""
        self.edited: str | None = None
        self.waiters: dict[asyncio.Future[HoldOutcome], str] = {}
        """What each waiting transaction waits on, with its id."""
        self.transaction_id = subject.transaction_id
        """The transaction that has waited longest, or the last one that did."""
        self.may_be_retried = True
        """Whether a retry may still come once every client has left."""
        self.delivered = False
        """Whether a waiting transaction has the outcome."""
        self.timer: Timer | None = None
        self.grace: Timer | None = None

    @property
    def is_pending(self) -> bool:
        return self.status == "pending"

    def stop_timers(self) -> None:
        for timer in (self.timer, self.grace):
            if timer is not None:
                timer.cancel()
        self.timer = self.grace = None

    def info(self, deadline: float) -> HoldInfo:
        """How it stands, for an operator; `deadline` in Unix time."""
        subject = self.subject
        return HoldInfo(
            id=self.id,
            transaction_id=self.transaction_id,
            stage=subject.stage.value,
            policy=subject.policy,
            reason=subject.why,
            content=subject.content,
            shown=self.shown,
            created=self.created_ns / 1e9,
            deadline=deadline,
            on_timeout=self.on_timeout,
            status=self.status,
            session_id=subject.session_id,
            agent=subject.agent,
            key=subject.key,
            model=subject.model,
            tool=subject.tool,
            call_id=subject.call_id,
            tool_schema=subject.tool_schema,
            waiting=len(self.waiters),
            decided_by=self.decided_by,
            message=self.message,
        )

    def record(
        self, *, at: float, deadline: float, first: bool = False, transaction_id: str = "", message: str | None = None
    ) -> HoldRecord:
        """How it stands, for the journal; `at` and `deadline` in Unix time."""
        subject = self.subject
        return HoldRecord(
            id=self.id,
            transaction_id=transaction_id or self.transaction_id,
            stage=subject.stage.value,
            policy=subject.policy,
            why=subject.why,
            content=subject.content if first else "",
            shown=self.shown,
            created_ns=self.created_ns,
            deadline_ns=int(deadline * 1e9),
            status=self.status,
            decided_by=self.decided_by,
            message=self.message if message is None else message,
            edited=self.edited,
            at_ns=int(at * 1e9),
            on_timeout=self.on_timeout,
            operation=subject.operation.value,
            streamed=subject.streamed,
            target=subject.target,
            key=subject.key,
            session_id=subject.session_id,
            agent=subject.agent,
            model=subject.model,
            tool=subject.tool,
            call_id=subject.call_id,
            tool_schema=subject.tool_schema if first else "",
            secrets=subject.secrets,
        )


def hold_of_records(first: HoldRecord, newest: HoldRecord, *, deadline: float) -> Hold:
    """A hold as its records tell it; `deadline` by the loop's clock."""
    operations = {one.value: one for one in Operation}
    subject = HoldSubject(
        transaction_id=newest.transaction_id,
        stage=Stage(first.stage),
        policy=first.policy,
        why=first.why,
        content=first.content,
        operation=operations.get(first.operation, Operation.OTHER),
        streamed=first.streamed,
        target=first.target,
        key=first.key,
        session_id=first.session_id,
        agent=first.agent,
        model=first.model,
        tool=first.tool,
        call_id=first.call_id,
        tool_schema=first.tool_schema,
    )
    hold = Hold(first.id, subject, first.shown, created_ns=first.created_ns, deadline=deadline, on_timeout=first.on_timeout)
    hold.status, hold.decided_by, hold.message, hold.edited = newest.status, newest.decided_by, newest.message, newest.edited
    return hold


def shortened(info: HoldInfo) -> HoldInfo:
    """The same for keeping: without the end of a long content, and without the schema."""
    return replace(info, content=info.content[:RECENT_CONTENT_CHARS], tool_schema="")
