"""The journal on real stores: what goes in comes out, once, and trouble never loses a record silently."""

from __future__ import annotations

import asyncio
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine

from proxy_core.errors import JournalUnavailable, StoreError
from proxy_core.journal import schema
from proxy_core.journal.bodies import assemble, cut
from proxy_core.journal.journal import Journal
from proxy_core.journal.migrate import bring_up_to_date
from proxy_core.journal.store import JournalStore
from proxy_core.settings import JournalSettings
from tests.proxy_core.journal.made import chat_body, intent, outcome


@pytest.fixture
async def journal(tmp_path: Path, database_url: str | None) -> AsyncIterator[Journal]:
    opened = await Journal.open(JournalSettings(database_url=database_url), tmp_path)
    yield opened
    await opened.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_what_goes_in_comes_out(journal: Journal) -> None:
    body = chat_body("one", "two")
    first = intent(journal, body)
    await journal.append(first)
    lost = await journal.store.detail(first.transaction_id)
    assert lost is not None
    assert (lost.row.outcome, lost.request_body) == ("lost", body)
    await journal.append(outcome(first.transaction_id, b"x" * 5_000, input_tokens=3, cost_usd=0.25))
    stored = await journal.store.detail(first.transaction_id)
    assert stored is not None
    assert (stored.request_body, stored.response_body) == (body, b"x" * 5_000)
    assert (stored.row.outcome, stored.row.input_tokens, stored.row.output_tokens, stored.row.cost_usd) == ("ok", 3, None, 0.25)
    assert ("authorization", "Bearer [redacted]") in stored.request_headers


@pytest.mark.parametrize("capture", ["full", "redacted", "metadata"])
async def test_who_asked_and_what_it_belongs_to(tmp_path: Path, capture: Literal["full", "redacted", "metadata"]) -> None:
    journal = await Journal.open(JournalSettings(capture=capture), tmp_path)
    asked = intent(
        journal,
        chat_body("one"),
        user="alice sk-canary-000000",
        tags=(("env", "staging"), ("note", "AKIAIOSFODNN7EXAMPLQ"), ("sk-canary-000000", "\x00é")),
        workflow="nightly",
        parent_session="s-0",
        link="inferred",
        side=True,
    )
    await journal.append(asked)
    await journal.append(outcome(asked.transaction_id, input_tokens=3, estimated=True))
    (row,) = await journal.store.rows(1)
    assert (row.user, row.workflow, row.parent_session, row.link) == ("alice [redacted]", "nightly", "s-0", "inferred")
    assert row.tags == (("env", "staging"), ("note", "[redacted]"), ("[redacted]", "\N{SYMBOL FOR NULL}é"))
    assert (row.side, row.estimated) == (True, True)
    await journal.close()


async def test_each_message_is_stored_once(journal: Journal, tmp_path: Path, database_url: str | None) -> None:
    history = [f"turn {number}" for number in range(20)]
    intents = [intent(journal, chat_body(*history[: length + 1])) for length in range(20)]
    for one in intents:
        await journal.append(one)
    engine = create_async_engine(database_url or f"sqlite+aiosqlite:///{tmp_path / 'luthien.db'}")
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM messages"))).scalar() == 20
    await engine.dispose()
    for one in intents:
        stored = await journal.store.detail(one.transaction_id)
        assert stored is not None
        assert stored.request_body == one.body


async def test_a_key_in_a_message_is_stored_without_it(journal: Journal) -> None:
    body = chat_body("my key is sk-canary-000000, and AKIA" + "A" * 16 + " too")
    one = intent(journal, body)
    await journal.append(one)
    stored = await journal.store.detail(one.transaction_id)
    assert stored is not None
    assert b"sk-canary" not in stored.request_body
    assert b"AKIA" not in stored.request_body
    assert stored.redacted


async def test_rows_come_newest_first_and_in_pages(journal: Journal) -> None:
    made = [intent(journal, b"{}") for _ in range(7)]
    for one in made:
        await journal.append(one)
        await journal.append(outcome(one.transaction_id))
    newest = [one.transaction_id for one in reversed(made)]
    first = await journal.store.rows(3)
    rest = await journal.store.rows(10, before=first[-1].transaction_id)
    assert [row.transaction_id for row in [*first, *rest]] == newest
    followed = await journal.store.rows_after(0, 100)
    assert [row.transaction_id for _, row in followed] == newest[::-1]


async def test_hostile_text_is_taken_by_every_column(journal: Journal) -> None:
    hostile = "a\x00b\ud800\x1b]52;c;x\x07\u202e"
    one = intent(journal, b'\xff\x00"', model=hostile, agent=hostile, preview=hostile, session_id=hostile)
    await journal.append(one)
    await journal.append(outcome(one.transaction_id, b"\x00\xff", answer_error=hostile, stop_reason=hostile))
    stored = await journal.store.detail(one.transaction_id)
    assert stored is not None
    assert (stored.request_body, stored.response_body) == (b'\xff\x00"', b"\x00\xff")


def locked(path: Path) -> sqlite3.Connection:
    """Somebody who holds the file's write lock."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


async def opened_impatient(tmp_path: Path, mode: str) -> Journal:
    journal = await Journal.open(JournalSettings.model_validate({"on_trouble": mode}), tmp_path)
    await journal._backend._writer.execute("PRAGMA busy_timeout=20")  # type: ignore[attr-defined]
    return journal


async def test_spilled_records_are_taken_in_again(tmp_path: Path) -> None:
    journal = await opened_impatient(tmp_path, "spill")
    other = locked(tmp_path / "luthien.db")
    made = [intent(journal, chat_body(f"while locked {number}")) for number in range(3)]
    for one in made:
        await journal.append(one)
    assert (journal.writer.status, journal.writer.spilled) == ("spilling", 3)
    assert (tmp_path / "spool" / "journal.spool").stat().st_mode & 0o077 == 0
    other.execute("ROLLBACK")
    other.close()
    await until(lambda: journal.writer.status == "ok")
    for one in made:
        stored = await journal.store.detail(one.transaction_id)
        assert stored is not None
        assert stored.request_body == one.body
    assert not (tmp_path / "spool" / "journal.spool").exists()
    await journal.close()


async def test_a_spool_left_behind_is_taken_in_at_the_next_start(tmp_path: Path) -> None:
    journal = await opened_impatient(tmp_path, "spill")
    other = locked(tmp_path / "luthien.db")
    one = intent(journal, chat_body("left behind"))
    await journal.append(one)
    await journal.close()
    other.execute("ROLLBACK")
    other.close()
    with (tmp_path / "spool" / "journal.spool").open("ab") as spool:
        spool.write(b"\x10\x00\x00")  # what a crash in the middle of a frame leaves
    journal = await Journal.open(JournalSettings(), tmp_path)
    await until(lambda: journal.writer.status == "ok")
    assert await journal.store.detail(one.transaction_id) is not None
    await journal.close()


async def test_block_lets_nothing_new_in_and_loses_nothing(tmp_path: Path) -> None:
    journal = await opened_impatient(tmp_path, "block")
    other = locked(tmp_path / "luthien.db")
    waiting = intent(journal, b"{}")
    written = journal.append(waiting)
    await until(lambda: journal.writer.status == "failing")
    with pytest.raises(JournalUnavailable):
        journal.append(intent(journal, b"{}"))
    assert not written.done()
    other.execute("ROLLBACK")
    other.close()
    await asyncio.wait_for(written, 10)
    assert await journal.store.detail(waiting.transaction_id) is not None
    await journal.close()


async def test_drop_counts_the_gap_and_writes_it_down(tmp_path: Path) -> None:
    journal = await opened_impatient(tmp_path, "drop")
    other = locked(tmp_path / "luthien.db")
    for _ in range(2):
        await journal.append(intent(journal, b"{}"))
    assert journal.writer.dropped == 2
    other.execute("ROLLBACK")
    await journal.append(intent(journal, b"{}"))
    await until(lambda: journal.writer.status == "ok")
    assert other.execute("SELECT records FROM gaps").fetchall() == [(2,)]
    other.close()
    await journal.close()


async def test_a_second_writer_of_the_same_file_is_refused(tmp_path: Path) -> None:
    journal = await Journal.open(JournalSettings(), tmp_path)
    with pytest.raises(StoreError, match=f"process {os.getpid()}.*--data-dir"):
        await Journal.open(JournalSettings(), tmp_path)
    await journal.close()


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b""])
async def test_a_file_that_is_no_journal(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "luthien.db").write_bytes(content)
    if content:
        with pytest.raises(StoreError, match="luthien"):
            await Journal.open(JournalSettings(), tmp_path)
    else:
        await (await Journal.open(JournalSettings(), tmp_path)).close()


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    await (await Journal.open(JournalSettings(), tmp_path)).close()
    with sqlite3.connect(tmp_path / "luthien.db") as other:
        other.execute("UPDATE alembic_version SET version_num = '9999'")
    other.close()
    with pytest.raises(StoreError, match="newer luthien"):
        await Journal.open(JournalSettings(), tmp_path)


async def test_reading_needs_a_journal(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no journal"):
        await JournalStore.open(f"sqlite+aiosqlite:///{tmp_path / 'none.db'}")


def test_migrations_give_the_schema(tmp_path: Path) -> None:
    """The way through Alembic ends at the tables that a fresh store gets at once."""
    from alembic import command
    from alembic.config import Config

    import proxy_core.journal as package

    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    config = Config()
    config.set_main_option("script_location", str(Path(package.__path__[0]) / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == schema.HEAD_REVISION
    assert set(inspect(engine).get_table_names()) == {*schema.metadata.tables, "alembic_version"}
    engine.dispose()


async def test_opening_twice_changes_nothing(database_url: str | None, tmp_path: Path) -> None:
    url = database_url or f"sqlite+aiosqlite:///{tmp_path / 'twice.db'}"
    engine = create_async_engine(url)
    await bring_up_to_date(engine, url)
    await bring_up_to_date(engine, url)
    await engine.dispose()


async def test_sessions_without_a_parent_are_in_no_index_of_parents(database_url: str | None, tmp_path: Path) -> None:
    url = database_url or f"sqlite+aiosqlite:///{tmp_path / 'partial.db'}"
    engine = create_async_engine(url)
    await bring_up_to_date(engine, url)
    read = "indexdef FROM pg_indexes WHERE indexname" if database_url else "sql FROM sqlite_master WHERE name"
    async with engine.connect() as connection:
        definition = (await connection.execute(text(f"SELECT {read} = 'transactions_by_parent'"))).scalar_one()
    assert re.search(r" WHERE .*parent_session.*(<>|!=) *''", definition)
    await engine.dispose()


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), max_size=6))
def test_a_body_is_put_together_from_its_pieces(body: bytes, spans: list[tuple[int, int]]) -> None:
    pieces = []
    position = 0
    for gap, length in spans:
        start = position + gap
        part = body[start : start + length]
        if part:
            pieces.append((bytes([len(pieces)]), memoryview(part)))
            position = start + len(part)
    skeleton, offsets, hashes = cut(body, pieces)
    assert assemble(skeleton, offsets, hashes, {digest: bytes(part) for digest, part in pieces}) == body
