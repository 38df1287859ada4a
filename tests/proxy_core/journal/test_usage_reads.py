"""Sums of what was used, over real stores: each group once, what is unknown apart, nothing counted twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy_core.journal.journal import Journal
from proxy_core.journal.session_reads import SessionReads
from proxy_core.journal.usage_reads import GROUPS, UsageReads, UsageSum
from proxy_core.settings import JournalSettings
from tests.proxy_core.journal.made import STARTED_NS, chat_body, intent, outcome

DAY_NS = 86_400 * 10**9


@pytest.fixture
async def journal(tmp_path: Path, database_url: str | None) -> AsyncIterator[Journal]:
    opened = await Journal.open(JournalSettings(database_url=database_url), tmp_path)
    yield opened
    await opened.close()


async def record(journal: Journal, *, asked: dict[str, Any], ended: dict[str, Any] | None = None) -> str:
    one = intent(journal, chat_body("x"), **asked)
    await journal.append(one)
    if ended is not None:
        await journal.append(outcome(one.transaction_id, **ended))
    return one.transaction_id


PRICED: dict[str, Any] = {"input_tokens": 100, "output_tokens": 10, "cached_tokens": 40, "reasoning_tokens": 3, "cost_usd": 0.25}


async def filled(journal: Journal) -> None:
    today, tomorrow = {"started_ns": STARTED_NS}, {"started_ns": STARTED_NS + DAY_NS}
    alice = {"session_id": "s-1", "agent": "codex", "key": "ci", "user": "alice", "workflow": "nightly"}
    await record(journal, asked=alice | today, ended=PRICED)
    await record(journal, asked=alice | tomorrow, ended=PRICED | {"cache_write_tokens": 5, "upstream": "local", "reason": "x"})
    await record(journal, asked=alice | tomorrow | {"model": ""}, ended={"input_tokens": 7, "estimated": True, "model": "own"})
    await record(journal, asked={"session_id": "s-2"} | tomorrow, ended={"outcome": "error", "status": 500})
    await record(journal, asked={"session_id": "s-2"} | tomorrow)
    await record(journal, asked={"operation": "models", "session_id": "s-2"} | tomorrow, ended={})


def short(one: UsageSum) -> tuple[Any, ...]:
    return (one.group, one.requests, one.errors, one.input_tokens, one.output_tokens, one.cost_usd, one.unpriced, one.estimated)


async def test_one_sum_of_everything(journal: Journal) -> None:
    assert await UsageReads(journal.engine).usage() == []
    await filled(journal)
    (one,) = await UsageReads(journal.engine).usage()
    assert short(one) == ((), 6, 1, 207, 20, 0.5, 1, 1)
    assert (one.cached_tokens, one.cache_write_tokens, one.reasoning_tokens) == (80, 5, 6)
    assert (one.first_at, one.last_at) == (STARTED_NS / 1e9, (STARTED_NS + DAY_NS) / 1e9)


async def test_groups(journal: Journal) -> None:
    await filled(journal)
    by = {name: [short(one) for one in await UsageReads(journal.engine).usage(name)] for name in GROUPS}
    assert by["session"] == [(("s-1",), 3, 0, 207, 20, 0.5, 1, 1), (("s-2",), 3, 1, None, None, None, 0, 0)]
    assert by["agent"] == [(("codex",), 3, 0, 207, 20, 0.5, 1, 1), (("",), 3, 1, None, None, None, 0, 0)]
    assert [one[0][0] for one in by["model"]] == ["gpt-5.4", "own"]
    assert by["model"][1] == (("own",), 1, 0, 7, None, None, 1, 1)
    assert [one[:2] for one in by["upstream"]] == [(("openai",), 5), (("local",), 1)]
    assert [one[:2] for one in by["day"]] == [(("2026-11-19",), 5), (("2026-11-18",), 1)]
    assert [one[0][0] for one in by["key"]] == ["ci", ""]
    assert [one[0][0] for one in by["user"]] == ["alice", ""]
    assert [one[0][0] for one in by["workflow"]] == ["nightly", ""]


async def test_several_groups_a_part_and_a_limit(journal: Journal) -> None:
    await filled(journal)
    usage = UsageReads(journal.engine).usage
    found = [one.group for one in await usage(("day", "session"), where={"agent": "codex"})]
    assert found == [("2026-11-19", "s-1"), ("2026-11-18", "s-1")]
    middle = (STARTED_NS + DAY_NS // 2) / 1e9
    assert [short(one)[:4] for one in await usage(until=middle)] == [((), 1, 0, 100)]
    assert [one.requests for one in await usage(since=middle)] == [5]
    assert [one.requests for one in await usage(since=-6e11, until=1e12)] == [6]
    assert [one.requests for one in await usage(where={"day": "2026-11-19", "user": "alice"})] == [2]
    assert len(await usage("session", limit=1)) == 1


async def test_the_newest_outcome_counts_once(journal: Journal) -> None:
    transaction_id = await record(journal, asked={}, ended=PRICED)
    await journal.append(outcome(transaction_id, **(PRICED | {"cost_usd": 1.0})))
    (one,) = await UsageReads(journal.engine).usage()
    assert (one.requests, one.cost_usd, one.input_tokens) == (1, 1.0, 100)


@pytest.mark.parametrize(("group_by", "where"), [("colour", {}), ("model", {"day": "yesterday"}), ("model", {"x": "y"})])
async def test_what_is_no_group(journal: Journal, group_by: Any, where: Any) -> None:
    with pytest.raises(ValueError, match=r"usage is summed by|does not match"):
        await UsageReads(journal.engine).usage(group_by, where=where)


async def test_sessions_come_to_the_same(journal: Journal) -> None:
    await filled(journal)
    await record(journal, asked={"session_id": "s-2", "operation": "count_tokens"}, ended={"input_tokens": 9})
    sums = {one.group[0]: one for one in await UsageReads(journal.engine).usage("session")}
    facts = await SessionReads(journal.engine).session_facts(["s-1", "s-2"])
    for name, one in sums.items():
        totals = facts[name].totals
        assert (totals.requests, totals.errors, totals.unpriced) == (one.requests, one.errors, one.unpriced)
        assert (totals.estimated, totals.cost_usd) == (one.estimated, one.cost_usd)
        for counted in ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"):
            assert getattr(totals, counted) == (getattr(one, counted) or 0)
