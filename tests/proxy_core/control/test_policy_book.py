"""Policies changed while they are in force: validated, recorded before they hold, kept over restarts by a plain rule."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from proxy_core.control.feed import Feed
from proxy_core.control.plane import ControlInvalid, ControlNotFound
from proxy_core.control.policy_book import PolicyBook
from proxy_core.errors import ConfigurationError, JournalUnavailable
from proxy_core.journal.journal import Journal
from proxy_core.policies.stats import PolicyStats
from proxy_core.routing.reasons import Reason
from proxy_core.settings import JournalSettings, Settings
from proxy_core.tasks import spawn
from proxy_core.verdicts import Stage, Verdict

CANARY = "sk-canary-7f3a19c2d4e5f6a7b8c9d0e1"
REPLACE: dict[str, Any] = {"use": "string_replacement", "params": {"replacements": [["a", "b"]]}}
HOLD: dict[str, Any] = {"use": "hold_for_approval", "mode": "shadow"}
SECOND_NS = 1_000_000_000
START_NS = 1_795_000_000 * SECOND_NS


class Desk:
    """A journal, and books that are opened over it one after the other, as restarts do."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.feed = Feed()
        self.stats = PolicyStats()
        self.now_ns = START_NS
        self.book: PolicyBook

    def clock_ns(self) -> int:
        self.now_ns += SECOND_NS
        return self.now_ns

    async def start(self, *policies: dict[str, Any], **sections: Any) -> PolicyBook:
        self.book = PolicyBook(
            settings(*policies, **sections), journal=self.journal, feed=self.feed, stats=self.stats, clock_ns=self.clock_ns
        )
        await self.book.restore()
        return self.book

    def mode(self, name: str) -> str:
        return self.book.info(name).mode

    def param(self, name: str, param: str) -> Any:
        return next(one.value for one in self.book.info(name).params if one.name == param)


def settings(*policies: dict[str, Any], **sections: Any) -> Settings:
    return Settings.model_validate({"policies": list(policies), **sections})


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    journal = await Journal.open(JournalSettings(), tmp_path)
    yield Desk(journal)
    await journal.close()


async def test_a_change_is_in_force_recorded_and_told(desk: Desk) -> None:
    book = await desk.start(REPLACE, HOLD)
    before = book.chains
    info = await book.set_policy("hold_for_approval", mode="enforce", params={"timeout_s": 90}, who="ann", source="api")
    assert (info.mode, info.source) == ("enforce", "operator ann at 2026-11-18T11:06:41Z")
    assert desk.param("hold_for_approval", "timeout_s") == 90.0
    assert book.chains is not before
    assert book.chains.default.entries[0] is before.default.entries[0]  # the others stay the objects that they are
    (change,) = await desk.journal.store.control_changes(10)
    assert (change.who, change.source, change.what) == ("ann", "api", "hold_for_approval")
    assert change.before == {"mode": "shadow", "params": {"timeout_s": 600.0}}
    assert change.after == {"mode": "enforce", "params": {"timeout_s": 90.0}}
    assert (change.digest_before, change.digest_after) == (before.digest, book.chains.digest)
    ((_, kind, row, note),) = desk.feed.since(0)[0]
    assert (kind, row) == ("control_changed", None)
    assert note == "hold_for_approval set by ann: mode shadow → enforce, timeout_s 600.0 → 90.0"


async def test_nothing_is_in_force_before_it_is_durable(desk: Desk) -> None:
    book = await desk.start(HOLD)
    durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    taken: list[object] = []

    def slow(record: object) -> asyncio.Future[None]:
        taken.append(record)
        return durable

    desk.journal.append = slow  # type: ignore[method-assign]
    changing = spawn(book.set_policy("hold_for_approval", mode="off", who="ann"), name="change")
    while not taken:
        await asyncio.sleep(0)
    assert desk.mode("hold_for_approval") == "shadow"
    durable.set_result(None)
    await changing
    assert desk.mode("hold_for_approval") == "off"


async def test_a_change_whose_asker_is_gone_is_in_force_if_it_is_recorded(desk: Desk) -> None:
    book = await desk.start(HOLD)
    asking = spawn(book.set_policy("hold_for_approval", mode="off", who="ann"), name="ask")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    await book.set_policy("hold_for_approval", params={"timeout_s": 5}, who="bob")  # waits its turn
    assert (desk.mode("hold_for_approval"), len(await desk.journal.store.control_changes(9))) == ("off", 2)


async def test_a_journal_in_trouble_lets_nothing_change(desk: Desk) -> None:
    book = await desk.start(HOLD)

    def refuse(record: object) -> asyncio.Future[None]:
        raise JournalUnavailable("no")

    desk.journal.append = refuse  # type: ignore[method-assign]
    with pytest.raises(JournalUnavailable):
        await book.set_policy("hold_for_approval", mode="off", who="ann")
    assert desk.mode("hold_for_approval") == "shadow"


@pytest.mark.parametrize(
    ("name", "change", "field", "words"),
    [
        ("hold_for_approval", {"mode": "on"}, "mode", "none of enforce, shadow, off"),
        ("hold_for_approval", {"params": {"timeout_s": 0.5}}, "params.timeout_s", "greater than or equal to 1"),
        ("hold_for_approval", {"mode": "off", "params": {"timeout": 5}}, "params.timeout", "did you mean timeout_s?"),
        ("hold_for_approval", {"params": {"filter": "((("}}, "params.filter", "column"),
        ("string_replacement", {"params": {"replacements": [["a"]]}}, "params.replacements.0", ""),
        ("send_backend_request", {"mode": "off"}, "mode", "cannot be switched off"),
    ],
)
async def test_what_is_refused_changes_nothing(desk: Desk, name: str, change: dict[str, Any], field: str, words: str) -> None:
    book = await desk.start(REPLACE, HOLD, {"use": "send_backend_request"})
    before = book.chains
    with pytest.raises(ControlInvalid) as refused:
        await book.set_policy(name, **change, who="ann")
    assert refused.value.field.startswith(field)
    assert words in refused.value.message
    assert book.chains is before
    assert await desk.journal.store.control_changes(1) == []
    assert desk.feed.last_sequence == 0


async def test_an_unknown_policy_is_told_the_nearest(desk: Desk) -> None:
    book = await desk.start(HOLD)
    with pytest.raises(ControlNotFound, match="did you mean 'hold_for_approval'"):
        await book.set_policy("hold_for_aproval", mode="off", who="ann")


async def test_two_that_send_cannot_both_be_in_force(desk: Desk) -> None:
    book = await desk.start({"use": "backend_call", "mode": "off"}, {"use": "send_backend_request"})
    with pytest.raises(ControlInvalid, match="only one policy of a chain can send"):
        await book.set_policy("backend_call", mode="enforce", who="ann")


async def test_a_change_that_changes_nothing_leaves_no_record(desk: Desk) -> None:
    book = await desk.start(HOLD)
    before = book.chains
    await book.set_policy("hold_for_approval", mode="shadow", params={"timeout_s": 600}, who="ann")
    assert book.chains is before
    assert await desk.journal.store.control_changes(1) == []


async def test_an_operators_change_survives_a_restart(desk: Desk) -> None:
    book = await desk.start(REPLACE, HOLD)
    await book.set_policy("hold_for_approval", mode="off", who="ann")
    await book.set_policy("hold_for_approval", params={"timeout_s": 30}, who="bob")
    digest = book.chains.digest
    again = await desk.start(REPLACE, HOLD)
    assert again.chains.digest == digest
    assert (desk.mode("hold_for_approval"), desk.param("hold_for_approval", "timeout_s")) == ("off", 30.0)
    assert again.info("hold_for_approval").source.startswith("operator bob at ")
    assert again.info("string_replacement").source == "file"
    assert len(await desk.journal.store.control_changes(9)) == 2


async def test_what_the_operator_did_not_touch_follows_the_file_in_the_same_entry_only(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever edits the entry of a policy decides anew about all of it."""
    book = await desk.start(REPLACE, HOLD)
    await book.set_policy("hold_for_approval", mode="off", who="ann")
    await desk.start({**REPLACE, "mode": "off"}, HOLD)
    assert (desk.mode("hold_for_approval"), desk.mode("string_replacement")) == ("off", "off")
    with caplog.at_level(logging.WARNING, "proxy_core"):
        book = await desk.start(REPLACE, {**HOLD, "mode": "enforce"})
    assert (desk.mode("hold_for_approval"), book.info("hold_for_approval").source) == ("enforce", "file")
    assert "policy 'hold_for_approval': the configuration holds, not what operator ann at" in caplog.text
    await desk.start(REPLACE, HOLD)
    assert desk.mode("hold_for_approval") == "shadow"  # it ended, and does not come back with the old entry
    (change,) = [one for one in await desk.journal.store.control_changes(9) if one.source == "start"]
    assert (change.what, change.before) == ("hold_for_approval", {"mode": "off"})


async def test_an_override_rests_while_its_policy_is_not_configured(desk: Desk) -> None:
    book = await desk.start(HOLD)
    await book.set_policy("hold_for_approval", mode="off", who="ann")
    await desk.start(REPLACE)
    await desk.start(REPLACE, HOLD)
    assert desk.mode("hold_for_approval") == "off"


async def test_an_override_that_is_no_longer_valid_is_dropped(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    book = await desk.start(REPLACE, HOLD)
    await book.set_policy("hold_for_approval", params={"timeout_s": 30}, who="ann")
    await book.set_policy("string_replacement", mode="off", who="ann")
    latest = desk.journal.store.latest_policy_overrides

    async def of_an_older_version() -> Any:
        found = await latest()
        found["hold_for_approval"].params["gone_since"] = 1
        return found

    desk.journal.store.latest_policy_overrides = of_an_older_version  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING, "proxy_core"):
        await desk.start(REPLACE, HOLD)
    assert desk.param("hold_for_approval", "timeout_s") == 600.0
    assert desk.mode("string_replacement") == "off"
    assert "gone_since" in caplog.text


async def test_going_back_to_the_files_value_leaves_nothing_of_the_operator(desk: Desk) -> None:
    book = await desk.start(HOLD)
    await book.set_policy("hold_for_approval", mode="off", params={"timeout_s": 30}, who="ann")
    await book.set_policy("hold_for_approval", params={"timeout_s": 600}, who="ann")
    info = await book.set_policy("hold_for_approval", mode="shadow", who="ann")
    assert info.source == "file"
    assert await desk.journal.store.latest_policy_overrides() == {}


async def test_reset_gives_the_policy_back_to_the_file(desk: Desk) -> None:
    book = await desk.start(HOLD)
    await book.set_policy("hold_for_approval", mode="off", params={"timeout_s": 30}, who="ann")
    info = await book.reset("hold_for_approval", who="bob")
    assert (info.mode, desk.param("hold_for_approval", "timeout_s"), info.source) == ("shadow", 600.0, "file")
    await desk.start(HOLD)
    assert desk.mode("hold_for_approval") == "shadow"


async def test_secrets_of_the_file_stay_in_it(desk: Desk, tmp_path: Path) -> None:
    key = {"use": "add_api_key", "params": {"source": "config", "api_key": CANARY}}
    book = await desk.start(key)
    assert desk.param("add_api_key", "api_key") == "********"
    with pytest.raises(ControlInvalid, match="secret"):
        await book.set_policy("add_api_key", params={"api_key": "sk-other-000000000000000000000000"}, who="ann")
    await book.set_policy("add_api_key", params={"api_key": "********", "keep_client_key": False}, who="ann")
    entry = book.chains.default.entries[0]
    assert entry.policy.params.api_key.get_secret_value() == CANARY
    renewed = {"use": "add_api_key", "params": {"source": "config", "api_key": CANARY + "new"}}
    await desk.start(renewed)
    assert desk.param("add_api_key", "keep_client_key") is False  # a renewed key is no change of the entry
    changes = await desk.journal.store.control_changes(9)
    await desk.journal.close()
    everything = b"".join(file.read_bytes() for file in tmp_path.glob("luthien.db*"))
    assert b"sk-" not in everything
    assert "sk-" not in repr(changes) + repr(desk.feed.since(0))


async def test_infos_tell_place_stage_release_and_how_it_fared(desk: Desk) -> None:
    book = await desk.start(
        {"use": "string_replacement", "name": "in", "params": {"replacements": [["a", "b"]], "apply_to": "request"}},
        {"use": "send_backend_request"},
        {**REPLACE, "name": "out"},
        HOLD,
        chains=[{"match": {"agent": "researcher*"}, "policies": [{"use": "noop"}]}],
    )
    book.note([Verdict(policy="out", stage=Stage.RESPONSE, mode="enforce", action="modify", reason=Reason.TEXT_REPLACED, ms=2.0)])
    infos = book.infos()
    assert [(one.name, one.use, one.chain, one.position) for one in infos] == [
        ("in", "string_replacement", "global", 1),
        ("send_backend_request", "send_backend_request", "global", 2),
        ("out", "string_replacement", "global", 3),
        ("hold_for_approval", "hold_for_approval", "global", 4),
        ("noop", "noop", "agent=researcher*", 1),
    ]
    one_in, sends, out, held = infos[:4]
    assert (one_in.stages, out.stages, sends.sends) == (("request",), ("response",), True)
    assert (one_in.release, out.release, held.release) == ("pass", "tail", "block")
    assert (out.hits_1h, out.acted_1h, out.p50_ms, one_in.hits_1h) == (1, 1, 2.0, 0)
    assert (held.mode, held.on_error, held.summary != "") == ("shadow", "deny", True)


async def test_a_new_configuration_is_taken_whole(desk: Desk) -> None:
    book = await desk.start(REPLACE, HOLD)
    await book.set_policy("string_replacement", mode="off", who="ann")
    await book.set_policy("hold_for_approval", mode="off", who="ann")
    seen: list[str] = []
    wanted = settings({**HOLD, "params": {"timeout_s": 60}}, REPLACE, {"use": "noop"})
    limits = ({"max_per_key": 20}, {"max_per_key": 3})
    lines = await book.take_settings(
        wanted, who="luthien.yaml", others={"holds": limits}, then=lambda: seen.append(book.info("noop").mode)
    )
    assert seen == ["enforce"]
    assert (desk.mode("string_replacement"), desk.mode("hold_for_approval")) == ("off", "shadow")
    assert desk.param("hold_for_approval", "timeout_s") == 60.0
    assert [line.partition(":")[0] for line in lines] == ["hold_for_approval", "noop", "policies", "holds"]
    changes = {one.what: one for one in await desk.journal.store.control_changes(9) if one.source == "file"}
    assert changes["hold_for_approval"].before == {"mode": "off", "params": {"timeout_s": 600.0}}
    assert changes["hold_for_approval"].after == {"mode": "shadow", "params": {"timeout_s": 60.0}}
    assert changes["noop"].before == {}
    assert changes["policies"].after == {"global": ["hold_for_approval", "string_replacement", "noop"]}
    assert (changes["holds"].before, changes["holds"].after) == limits
    await desk.start({**HOLD, "params": {"timeout_s": 60}}, REPLACE, {"use": "noop"})
    assert (desk.mode("string_replacement"), desk.mode("hold_for_approval")) == ("off", "shadow")


async def test_a_configuration_that_is_at_fault_changes_nothing(desk: Desk) -> None:
    book = await desk.start(REPLACE, HOLD)
    before, applied = book.chains, []
    with pytest.raises(ConfigurationError, match=r"policies\[1\]"):
        await book.take_settings(
            settings(HOLD, {"use": "hold_for_approval", "name": "x", "params": {"stage": "never"}}),
            who="luthien.yaml",
            others={},
            then=lambda: applied.append(1),
        )
    assert (book.chains is before, applied) == (True, [])


async def test_many_changes_at_once_are_made_one_after_the_other(desk: Desk) -> None:
    book = await desk.start(REPLACE, HOLD)
    change: Callable[[int], Any] = lambda n: book.set_policy("hold_for_approval", params={"timeout_s": n + 1}, who=f"op{n}")  # noqa: E731
    await asyncio.gather(*[change(number) for number in range(50)])
    changes = await desk.journal.store.control_changes(99)
    assert len(changes) == 50
    for newer, older in pairwise(changes):
        assert newer.digest_before == older.digest_after
        assert newer.before == older.after
    assert changes[0].digest_after == book.chains.digest
