"""Sessions of the gateway in this process: what the journal has, with what runs now laid over it.

Nothing here waits for the traffic, or the traffic for it: the store reads in its own thread, stories are put together in
another.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from proxy_core.control.feed import Feed
from proxy_core.control.plane import ControlInvalid
from proxy_core.control.rows import TransactionRow
from proxy_core.control.session_filters import has_tags, parse_sessions
from proxy_core.control.session_infos import (
    AgentInfo,
    Count,
    SessionDetail,
    SessionInfo,
    SessionPage,
    SessionStatus,
    Turn,
)
from proxy_core.control.session_story import CONTEXT, Story, place_children
from proxy_core.detectors.secrets import redact_formats, redact_known
from proxy_core.journal.records import clean
from proxy_core.journal.session_facts import SessionFacts
from proxy_core.journal.session_reads import RecordedTurn, SessionReads
from proxy_core.running import Running
from proxy_core.totals import Totals
from proxy_core.wire.encodings import UnreadableEncoding, decoded

ACTIVE_S = 300.0
"""A session without a running request is active so long after its latest one began."""
MAX_ID_CHARS = 600
MAX_PAGE = 200
MAX_SCANNED = 2_000
"""Sessions that one call looks at for its filter; `next` goes on from there."""
SCAN = 100
MAX_TURNS = 1_000
MAX_CHILDREN = 200
STORY_PART = 20
WHOLE_CHARS = 1_000_000
_CURSOR = re.compile("([0-9]{1,18})[.]([0-9]{1,18})", re.ASCII)
STATUSES = ("", "active", "inactive", "completed")


class SessionBook:
    """Answers what front ends ask of sessions."""

    def __init__(
        self,
        reads: SessionReads,
        *,
        running: Mapping[str, Running],
        feed: Feed,
        ttl_s: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._reads = reads
        self._running = running
        self._feed = feed
        self._ttl_s = ttl_s
        self._wall = wall
        self._since = wall()

    async def sessions(
        self, *, expression: str, tags: Sequence[str], agent: str, status: str, limit: int, cursor: str | None
    ) -> SessionPage:
        """Raises FilterError, ControlInvalid."""
        if status.lower() not in STATUSES:
            raise ControlInvalid("status", "use active, inactive or completed")
        if not 1 <= limit <= MAX_PAGE:
            raise ControlInvalid("limit", f"use 1 to {MAX_PAGE}")
        place, upto = (None, await self._reads.newest()) if cursor is None else _place(cursor)
        wanted = [one for one in (tag.strip() for tag in tags) if one]
        means = parse_sessions(expression)
        every = not (expression.strip() or wanted or status)
        found: list[SessionInfo] = []
        scanned = 0
        while scanned < MAX_SCANNED:
            count = min(SCAN, limit - len(found)) if every else SCAN
            latest = await self._reads.latest_sessions(count, upto=upto, before=place, agent=clean(agent, MAX_ID_CHARS))
            for seq, info in zip((seq for seq, _ in latest), await self.infos([name for _, name in latest]), strict=True):
                place = seq
                scanned += 1
                if (not status or info.status == status.lower()) and has_tags(info, wanted) and means(info):
                    found.append(info)
                    if len(found) == limit:
                        return SessionPage(sessions=tuple(found), next=f"{place}.{upto}")
            if len(latest) < count:
                return SessionPage(sessions=tuple(found))
        return SessionPage(sessions=tuple(found), next=f"{place}.{upto}")

    async def session(self, session_id: str, *, after: int | None, before: int | None, limit: int) -> SessionDetail | None:
        if not 1 <= limit <= MAX_TURNS:
            raise ControlInvalid("limit", f"use 1 to {MAX_TURNS}")
        session_id = clean(session_id, MAX_ID_CHARS)
        total = await self._reads.turn_count(session_id)
        if not total:
            return None
        end = total if after is not None or before is None else min(total, before - 1)
        first = max(1, end - limit + 1) if after is None else min(after, total) + 1
        end = min(end, first + limit - 1)
        context = max(1, first - CONTEXT)
        recorded = await self._recorded(session_id, context, max(0, end - context + 1))
        names = await self._reads.children(session_id, MAX_CHILDREN)
        info, *children = await self.infos([session_id, *names])
        parent = (await self.infos([info.parent]))[:1] if info.parent and info.parent != session_id else []
        turns, system = await asyncio.to_thread(_story, recorded, first, children)
        return SessionDetail(
            info=info,
            turns=tuple(turns),
            before=first if first > 1 else None,
            children=tuple(children),
            parent=parent[0] if parent else None,
            system=system,
        )

    async def story(self, session_id: str) -> AsyncIterator[Turn]:
        """Every turn in order, with whole texts. A turn comes some turns late, so that the results of its calls are there."""
        session_id = clean(session_id, MAX_ID_CHARS)
        story = Story(STORY_PART, text_chars=WHOLE_CHARS)
        waiting: deque[Turn] = deque()
        first = 1
        while recorded := await self._recorded(session_id, first, STORY_PART):
            waiting += await asyncio.to_thread(_tell, story, recorded)
            while len(waiting) > STORY_PART:
                yield waiting.popleft()
            first += len(recorded)
        for turn in waiting:
            yield turn

    async def used_tags(self) -> dict[str, dict[str, int]]:
        return await self._reads.used_tags()

    # --- from the journal's facts to what is shown ---

    async def infos(self, names: Sequence[str]) -> list[SessionInfo]:
        before = self.moment()
        facts = await self._reads.session_facts(names)
        found = [self._info(facts[name]) for name in names if name in facts]
        self.lay_over(found, before, lambda one: one.session_id)
        return found

    def moment(self) -> int:
        """Now, as number in the feed; taken before the journal is read, it tells what ended meanwhile from what is lost."""
        return self._feed.last_sequence

    def ended_since(self, moment: int) -> list[TransactionRow]:
        """What ended after that."""
        records, _ = self._feed.since(moment, self._feed.last_sequence)
        return [one.row for one in records if one.kind == "finished" and one.row is not None]

    def _info(self, facts: SessionFacts) -> SessionInfo:
        quiet = self._wall() - facts.last_ns / 1e9
        status: SessionStatus = "active" if quiet < ACTIVE_S else "inactive" if quiet < self._ttl_s else "completed"
        return SessionInfo(
            id=facts.id,
            agent=facts.agent,
            user=facts.user,
            workflow=facts.workflow,
            tags=tuple(facts.tags.items()),
            parent=facts.parent,
            predecessor=facts.predecessor,
            link=facts.link,
            started_at=facts.started_ns / 1e9,
            last_at=facts.last_ns / 1e9,
            status=status,
            turns=facts.turns,
            models=facts.models,
            upstreams=facts.upstreams,
            totals=facts.totals,
            children=facts.children,
            tools=counted(facts.tools, 20),
            preview=facts.preview,
        )

    def lay_over(self, infos: Iterable[SessionInfo | AgentInfo], before: int, of: Callable[[Any], str]) -> None:
        """What runs here is running; what has no outcome, does not run and did not end since `before` is lost."""
        running: dict[str, list[Running]] = {}
        for one in self._running.values():
            running.setdefault(of(one.row), []).append(one)
        ended = Counter(of(row) for row in self.ended_since(before))
        for info in infos:
            here = running.get(info.id, [])
            correct(info.totals, here, ended[info.id])
            if here and isinstance(info, SessionInfo):
                info.status = "active"

    async def _recorded(self, session_id: str, first: int, count: int) -> list[RecordedTurn]:
        """Turns as they are in the journal, those that run as they are now."""
        recorded = await self._reads.turns(session_id, first, count)
        if any(self._has_ended(one) for one in recorded):
            recorded = await self._reads.turns(session_id, first, count)
        for one in recorded:
            self._as_it_runs(one)
        return recorded

    def _has_ended(self, recorded: RecordedTurn) -> bool:
        """Whether it ran here when it was read, and does not any more: then its outcome is there now."""
        is_of_this_life = recorded.row.started_at >= self._since
        return recorded.ended_ns is None and is_of_this_life and recorded.row.transaction_id not in self._running

    def _as_it_runs(self, recorded: RecordedTurn) -> None:
        running = self._running.get(recorded.row.transaction_id)
        if running is None:
            return
        recorded.row = running.row
        recorded.response_body = redact_formats(redact_known(_readable(running), running.secrets))
        recorded.response_type = running.content_type
        recorded.verdicts = tuple(running.control.context.verdicts) if running.control is not None else ()


def _place(cursor: str) -> tuple[int, int]:
    """Numbers of the last request that was looked at, and of the newest one when the first page was made."""
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise ControlInvalid("cursor", "give the `next` of the page before")
    return int(found[1]), int(found[2])


def _story(recorded: Sequence[RecordedTurn], first: int, children: Sequence[SessionInfo]) -> tuple[list[Turn], str]:
    story = Story(len(recorded))
    turns = _tell(story, recorded)
    place_children(turns, children)
    return [turn for turn in turns if turn.number >= first], story.system


def _tell(story: Story, recorded: Sequence[RecordedTurn]) -> list[Turn]:
    turns: list[Turn] = []
    for one in recorded:
        turns.append(story.tell(one))
        time.sleep(0)  # the loop goes first
    return turns


def correct(totals: Totals, running: Collection[Running], ended: int) -> None:
    """Count as running what runs, and as errors what has no outcome, neither runs nor is among those that `ended` just now."""
    recorded = len([True for one in running if one.intended]) + ended
    totals.errors += max(0, totals.running - recorded)
    totals.running = len(running)


def counted(counts: Mapping[str, int], limit: int) -> tuple[Count, ...]:
    most = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return tuple(Count(name, count) for name, count in most[:limit])


def _readable(running: Running) -> bytes:
    body = bytes(running.response)
    if not running.content_encoding:
        return body
    try:
        return decoded(body, running.content_encoding)
    except UnreadableEncoding:
        return b""
