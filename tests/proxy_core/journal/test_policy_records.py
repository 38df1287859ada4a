"""What policies and operators did, as the journal keeps it: both stores, all capture modes, no secret anywhere."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import MetaData, Table, create_engine, select, text
from sqlalchemy.ext.asyncio import create_async_engine

from proxy_core.errors import JournalUnavailable, StoreError
from proxy_core.hold_record import HoldRecord
from proxy_core.journal import schema
from proxy_core.journal.backends import columns_of
from proxy_core.journal.journal import Journal
from proxy_core.journal.records import ControlChange, LateVerdicts, Sent
from proxy_core.journal.rows import RowBuilder, grown
from proxy_core.journal.said import read_verdicts
from proxy_core.journal.spool import Spool
from proxy_core.journal.store import JournalStore
from proxy_core.routing.reasons import Reason
from proxy_core.settings import JournalSettings
from proxy_core.verdicts import Stage, Verdict
from tests.proxy_core.journal.made import STARTED_NS, chat_body, intent, outcome

KNOWN = b"sk-canary-000000"
FORMAT = "AKIA" + "Q" * 16


@pytest.fixture
async def journal(tmp_path: Path, database_url: str | None) -> AsyncIterator[Journal]:
    opened = await Journal.open(JournalSettings(database_url=database_url), tmp_path)
    yield opened
    await opened.close()


def said(policy: str = "strip_secrets", **other: Any) -> Verdict:
    return Verdict(**({"policy": policy, "stage": Stage.REQUEST, "mode": "enforce"} | other))


def sent(transaction_id: str, body: bytes, **other: Any) -> Sent:
    fields: dict[str, Any] = {
        "transaction_id": transaction_id,
        "at_ns": STARTED_NS + 2,
        "upstream": "local",
        "reason": "backend_set",
        "target": b"/v1/chat/completions?key=abcdefghijkl&x=1",
        "headers": [(b"x-api-key", b"k-222222222222"), (b"x-kept", b"yes")],
        "body": body,
        "secrets": (KNOWN,),
    }
    return Sent(**(fields | other))


def hold(**other: Any) -> HoldRecord:
    fields: dict[str, Any] = {
        "id": "h-1",
        "transaction_id": "t-1",
        "stage": "tool_call",
        "policy": "hold_for_approval",
        "why": "a shell command",
        "content": '{"command":"rm -rf build"}',
        "shown": "ab" * 32,
        "created_ns": STARTED_NS,
        "deadline_ns": STARTED_NS + 600,
        "status": "pending",
        "at_ns": STARTED_NS,
        "tool": "bash",
        "secrets": (KNOWN,),
    }
    return HoldRecord(**(fields | other))


def change(what: str = "strip_secrets", **other: Any) -> ControlChange:
    fields: dict[str, Any] = {
        "at_ns": STARTED_NS,
        "who": "ann",
        "source": "api",
        "what": what,
        "before": {"mode": "enforce"},
        "after": {"mode": "off"},
        "digest_before": "d1",
        "digest_after": "d2",
        "override": {"mode": "off"},
        "declared": "f1",
    }
    return ControlChange(**(fields | other))


async def test_a_changed_transaction_is_kept_in_both_forms(journal: Journal) -> None:
    body, final = chat_body("one", "two"), chat_body("one", "other")
    asked = intent(journal, body, policy_digest="c0ffee", key="team-a")
    await journal.append(asked)
    await journal.append(sent(asked.transaction_id, final, verdicts=(said(),)))
    unfinished = await journal.store.detail(asked.transaction_id)
    assert unfinished is not None
    assert (unfinished.row.outcome, unfinished.row.upstream, [one.policy for one in unfinished.verdicts]) == (
        "lost",
        "local",
        ["strip_secrets"],
    )
    verdicts = (
        said(action="modify", reason=Reason.SECRET_REMOVED, message="took out 1", score=0.5, ms=1.25, detail={"found": 1}),
        said("judge", stage=Stage.TOOL_CALL, mode="shadow", ran="error", action="deny", reason=Reason.JUDGE_UNAVAILABLE),
    )
    ended = outcome(
        asked.transaction_id,
        b'{"shown":1}',
        verdicts=verdicts,
        upstream_body=b'{"given":1}',
        upstream_status=201,
        upstream="local",
        reason="backend_set",
    )
    await journal.append(ended)
    late = said("slow", mode="shadow", action="flag", reason=Reason.TOOL_JUDGED_HARMFUL)
    await journal.append(LateVerdicts(transaction_id=asked.transaction_id, at_ns=STARTED_NS + 20, verdicts=(late,)))
    stored = await journal.store.detail(asked.transaction_id)
    assert stored is not None
    assert stored.verdicts == (*verdicts, late)
    assert (stored.policy_digest, stored.key) == ("c0ffee", "team-a")
    assert (stored.request_body, stored.sent_body) == (body, final)
    assert (stored.response_body, stored.upstream_body, stored.upstream_status) == (b'{"shown":1}', b'{"given":1}', 201)
    assert stored.sent_target == b"/v1/chat/completions?key=[redacted]&x=1"
    assert dict(stored.sent_headers) == {"x-api-key": "[redacted]", "x-kept": "yes"}
    assert (stored.row.upstream, stored.row.reason) == ("local", "backend_set")
    listed = await journal.store.rows(1)
    assert (listed[0].upstream, listed[0].reason) == ("local", "backend_set")
    decided = await journal.store.decided([asked.transaction_id])
    assert decided[asked.transaction_id].verdicts == stored.verdicts


async def test_without_policies_there_is_no_extra_row(journal: Journal, tmp_path: Path, database_url: str | None) -> None:
    asked = intent(journal, chat_body("plain"))
    await journal.append(asked)
    await journal.append(outcome(asked.transaction_id))
    engine = create_async_engine(database_url or f"sqlite+aiosqlite:///{tmp_path / 'luthien.db'}")
    async with engine.connect() as connection:
        for table in (schema.sent_requests, schema.upstream_answers, schema.late_verdicts):
            assert (await connection.execute(select(table))).all() == []
    await engine.dispose()
    stored = await journal.store.detail(asked.transaction_id)
    assert stored is not None
    assert (stored.verdicts, stored.sent_body, stored.upstream_body, stored.policy_digest) == ((), None, None, "")
    assert await journal.store.decided([asked.transaction_id]) == {}


async def test_the_final_form_shares_what_the_policies_left_alone(
    journal: Journal, tmp_path: Path, database_url: str | None
) -> None:
    history = [f"turn {number}" for number in range(10)]
    asked = intent(journal, chat_body(*history), policy_digest="d")
    await journal.append(asked)
    await journal.append(sent(asked.transaction_id, chat_body(*history[:-1], "rephrased")))
    engine = create_async_engine(database_url or f"sqlite+aiosqlite:///{tmp_path / 'luthien.db'}")
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM messages"))).scalar() == 11
    await engine.dispose()
    stored = await journal.store.detail(asked.transaction_id)
    assert stored is not None
    assert stored.sent_body == chat_body(*history[:-1], "rephrased")


async def test_a_hold_is_its_newest_record_with_what_was_held_first(journal: Journal) -> None:
    await journal.append(hold())
    await journal.append(hold(id="h-2", created_ns=STARTED_NS + 1, content="\ud800\x00 strange"))
    assert [(one.id, one.status, one.tool) for one in await journal.store.holds(10, pending=True)] == [
        ("h-2", "pending", "bash"),
        ("h-1", "pending", "bash"),
    ]
    decided = hold(
        content="", tool="", status="edited", decided_by="ann", message="safer", edited='{"command":"ls"}', at_ns=STARTED_NS + 9
    )
    await journal.append(decided)
    assert [one.id for one in await journal.store.holds(10, pending=True)] == ["h-2"]
    first = (await journal.store.holds(10))[1]
    assert (first.status, first.decided_by, first.message, first.edited) == ("edited", "ann", "safer", '{"command":"ls"}')
    assert (first.content, first.tool, first.shown) == ('{"command":"rm -rf build"}', "bash", "ab" * 32)
    assert await journal.store.holds(10, transaction_id="t-other") == []
    assert [one.id for one in await journal.store.holds(10, before=STARTED_NS + 1)] == ["h-1"]


async def test_changes_and_what_is_left_of_overrides(journal: Journal) -> None:
    await journal.append(change(at_ns=1))
    await journal.append(change(at_ns=2, who="bob", override={"mode": "shadow", "params": {"threshold": 0.7}}, declared="f2"))
    await journal.append(change("judge", at_ns=3))
    await journal.append(change("judge", at_ns=4, override={}))
    await journal.append(change("holds", source="file", at_ns=5, override=None))
    await journal.append(change("strip_secrets", source="file", at_ns=6, override=None))
    newest = await journal.store.control_changes(2)
    assert [(one.what, one.source) for one in newest] == [("strip_secrets", "file"), ("holds", "file")]
    older = await journal.store.control_changes(10, before=newest[-1].sequence)
    assert [one.at_ns for one in older] == [4, 3, 2, 1]
    assert (older[-1].before, older[-1].after, older[-1].digest_after) == ({"mode": "enforce"}, {"mode": "off"}, "d2")
    overrides = await journal.store.latest_policy_overrides()
    assert set(overrides) == {"strip_secrets"}
    left = overrides["strip_secrets"]
    assert (left.mode, left.params, left.who, left.declared, left.at_ns) == ("shadow", {"threshold": 0.7}, "bob", "f2", 2)


SECRET_TEXT = f"key {KNOWN.decode()} and {FORMAT}"


@pytest.mark.parametrize("capture", ["full", "redacted", "metadata"])
async def test_no_secret_is_written(tmp_path: Path, capture: str) -> None:
    journal = await Journal.open(JournalSettings.model_validate({"capture": capture}), tmp_path)
    asked = intent(journal, b"{}", policy_digest="d")
    body = b'{"messages":[{"role":"user","content":"' + SECRET_TEXT.encode() + b"." * 80 + b'"}]}'
    verdict = said(message=SECRET_TEXT, detail={"quoted": [SECRET_TEXT, {SECRET_TEXT: SECRET_TEXT}], "count": 3})
    await journal.append(asked)
    secrets = (KNOWN,)
    await journal.append(sent(asked.transaction_id, body, target=b"/v1/x?key=" + KNOWN, verdicts=(verdict,)))
    await journal.append(outcome(asked.transaction_id, verdicts=(verdict,), upstream_body=body, secrets=secrets))
    await journal.append(LateVerdicts(transaction_id=asked.transaction_id, at_ns=1, verdicts=(verdict,), secrets=secrets))
    held = hold(content=SECRET_TEXT, why=SECRET_TEXT, message=SECRET_TEXT, edited=SECRET_TEXT, tool_schema=SECRET_TEXT)
    await journal.append(held)
    await journal.append(change(before={"text": FORMAT}, after={"text": [FORMAT]}, override={"params": {"text": FORMAT}}))
    stored = await journal.store.detail(asked.transaction_id)
    holds = await journal.store.holds(1)
    await journal.close()
    assert stored is not None
    everything = b"".join(file.read_bytes() for file in tmp_path.glob("luthien.db*"))
    # bodies are compressed in the file, so what comes back is looked at too
    everything += repr((stored, holds)).encode() + (stored.sent_body or b"") + (stored.upstream_body or b"")
    assert KNOWN not in everything
    if capture != "full":
        assert FORMAT.encode() not in everything
    assert stored.verdicts[0].detail["count"] == 3
    if capture == "metadata":
        assert (stored.sent_body, stored.upstream_body, holds[0].content) == (None, None, "")
        assert stored.verdicts[0].message.startswith(f"[{len(SECRET_TEXT)} bytes, hash ")
    else:
        assert holds[0].content.startswith("key [redacted] and ")
        assert stored.verdicts[0].message == holds[0].content


async def test_a_secret_that_looks_like_json_breaks_no_verdict(journal: Journal) -> None:
    """A client chooses its own key: parts of the record's JSON are no exception."""
    asked = intent(journal, b"{}", policy_digest="d")
    await journal.append(asked)
    secrets = (b'"policy":', b"strip_secrets", b'","message":"', b'quo"ted\\key')
    await journal.append(
        outcome(asked.transaction_id, verdicts=(said(message='the key quo"ted\\key', detail={"a": "b"}),), secrets=secrets)
    )
    stored = await journal.store.detail(asked.transaction_id)
    assert stored is not None
    assert (stored.verdicts[0].policy, stored.verdicts[0].message) == ("strip_secrets", "the key [redacted]")


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError("not even that")


async def test_junk_of_a_policy_is_recorded_as_far_as_it_can_be(journal: Journal) -> None:
    asked = intent(journal, b"{}", policy_digest="d", key="k\x00\ud800")
    await journal.append(asked)
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep]
    junk = {
        "bytes": b"\xff",
        "object": Odd(),
        "nan": float("nan"),
        "big": 10**30,
        "deep": deep,
        "long": "x" * 10_000,
        "many": list(range(1_000)),
        "set": {"b", "a"},
        "surrogate": "\ud800\x00",
        7: "no name",
    }
    verdicts = (
        said(detail=junk),
        said("\ud800"),
        said(action=Odd()),
        said(score="high", message=5, detail=[1]),
        *(said() for _ in range(1_200)),
    )
    await journal.append(outcome(asked.transaction_id, verdicts=verdicts))
    stored = await journal.store.detail(asked.transaction_id)
    assert stored is not None
    assert len(stored.verdicts) == 1_000
    detail = stored.verdicts[0].detail
    assert (detail["object"], detail["nan"], detail["big"]) == ("<Odd>", None, "1" + "0" * 30)
    assert (len(detail["long"]), len(detail["many"]), detail["set"], detail["bytes"]) == (2_000, 200, ["a", "b"], "\ufffd")
    assert [one.reason for one in stored.verdicts[1:3]] == [Reason.POLICY_JUNK, Reason.POLICY_JUNK]
    assert (stored.verdicts[3].score, stored.verdicts[3].message) == (None, "5")


def test_verdicts_of_another_version_can_be_read() -> None:
    known = msgspec.to_builtins(said())
    entries = [known | {"reason": "of_the_future", "message": "hm", "extra": 1}, known | {"action": "teleport"}, "no verdict"]
    read = read_verdicts(msgspec.json.encode(entries))
    assert [(one.reason, one.message) for one in read] == [
        (Reason.POLICY_DECISION, "of_the_future: hm"),
        (Reason.POLICY_JUNK, "what it said could not be recorded"),
        (Reason.POLICY_JUNK, "what it said could not be recorded"),
    ]


def to_first_version(connection: Any) -> None:
    """The tables as the first version made them."""
    from alembic import command
    from alembic.config import Config

    import proxy_core.journal as package

    config = Config()
    config.set_main_option("script_location", str(Path(package.__path__[0]) / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "0001")


def old_rows(capture: Any = "full") -> dict[str, list[tuple[Any, ...]]]:
    """An intent and its outcome as rows of the first version."""

    class NoJournal:
        def digest(self, content: bytes | memoryview) -> bytes:
            return RowBuilder(key=b"k", capture=capture).digest(content)

    asked = intent(NoJournal(), b'{"old":1}')  # type: ignore[arg-type]
    rows = RowBuilder(key=b"k", capture=capture).build([asked, outcome(asked.transaction_id, b"old answer")]).as_lists()
    return {"transactions": [rows["transactions"][0][:23]], "outcomes": [rows["outcomes"][0][:26]]}


async def test_a_store_of_the_first_version_is_migrated(tmp_path: Path, database_url: str | None) -> None:
    path = tmp_path / "luthien.db"
    url = database_url or f"sqlite+aiosqlite:///{path}"
    engine = create_async_engine(url)
    rows = old_rows()

    def prepare(connection: Any) -> None:
        to_first_version(connection)
        for name in ("transactions", "outcomes"):
            table = Table(name, MetaData(), autoload_with=connection)
            columns = [column.name for column in table.columns if column.name != "seq"]
            connection.execute(table.insert(), [dict(zip(columns, row, strict=True)) for row in rows[name]])

    async with engine.begin() as connection:
        await connection.run_sync(prepare)
    await engine.dispose()
    journal = await Journal.open(JournalSettings(database_url=database_url), tmp_path)
    old = await journal.store.detail(rows["transactions"][0][0])
    assert old is not None
    assert (old.request_body, old.response_body, old.policy_digest, old.key) == (b'{"old":1}', b"old answer", "", "")
    assert old.row.upstream == "openai"
    asked = intent(journal, b"{}", policy_digest="new")
    await journal.append(asked)
    await journal.append(outcome(asked.transaction_id, verdicts=(said(),)))
    assert (await journal.store.decided([asked.transaction_id]))[asked.transaction_id].policy_digest == "new"
    await journal.append(change())
    await journal.append(hold())
    assert len(await journal.store.holds(5)) == 1
    await journal.close()


async def test_a_spool_of_the_first_version_is_taken_in(tmp_path: Path) -> None:
    rows = old_rows()
    Spool(tmp_path / "spool").append(rows, 2)
    journal = await Journal.open(JournalSettings(), tmp_path)
    async with asyncio.timeout(30):
        while journal.writer.status != "ok":
            await asyncio.sleep(0.01)
    old = await journal.store.detail(rows["transactions"][0][0])
    assert old is not None
    assert (old.request_body, old.response_body) == (b'{"old":1}', b"old answer")
    await journal.close()


def test_rows_of_every_version_grow_to_the_tables_of_today() -> None:
    rows = {
        "transactions": [("t",) * length for length in (23, 25, 31)],
        "outcomes": [("o",) * length for length in (26, 29, 30)],
    }
    whole = grown(rows)
    assert [len(row) for row in whole["transactions"]] == [len(columns_of(schema.transactions))] * 3
    assert [len(row) for row in whole["outcomes"]] == [len(columns_of(schema.outcomes))] * 3
    assert whole["transactions"][1][23:] == ("t", "t", "", "", "", "", "", 0)
    assert whole["outcomes"][1][26:] == ("o", "o", "o", 0, "", "")


async def test_reading_a_store_of_the_first_version_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "luthien.db"
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        to_first_version(connection)
    engine.dispose()
    with pytest.raises(StoreError, match=r"schema 0001, this luthien reads .*; start luthien once"):
        await JournalStore.open(f"sqlite+aiosqlite:///{path}")


async def test_every_record_is_spilled_and_taken_in(tmp_path: Path) -> None:
    journal = await Journal.open(JournalSettings(), tmp_path)
    await journal._backend._writer.execute("PRAGMA busy_timeout=20")  # type: ignore[attr-defined]
    other = sqlite3.connect(tmp_path / "luthien.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asked = intent(journal, chat_body("a"), policy_digest="d")
    for record in (asked, sent(asked.transaction_id, chat_body("b")), hold(), change()):
        await journal.append(record)
    await journal.append(outcome(asked.transaction_id, verdicts=(said(),), upstream_body=b"u"))
    assert journal.writer.spilled == 5
    other.execute("ROLLBACK")
    other.close()
    async with asyncio.timeout(30):
        while journal.writer.status != "ok":
            await asyncio.sleep(0.01)
    stored = await journal.store.detail(asked.transaction_id)
    assert stored is not None
    assert (stored.sent_body, stored.upstream_body, len(stored.verdicts)) == (chat_body("b"), b"u", 1)
    assert (len(await journal.store.holds(5)), len(await journal.store.control_changes(5))) == (1, 1)
    await journal.close()


async def test_no_change_is_taken_while_a_blocking_journal_is_in_trouble(tmp_path: Path) -> None:
    journal = await Journal.open(JournalSettings(on_trouble="block"), tmp_path)
    journal.writer.status = "failing"
    with pytest.raises(JournalUnavailable):
        journal.append(change())
    journal.writer.status = "ok"
    await journal.close()
