"""The configuration file while the gateway runs: taken in whole or not at all, and what is wrong is told with its line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from proxy_core.control.config_watch import ConfigWatch
from proxy_core.control.feed import Feed
from proxy_core.control.policy_book import PolicyBook
from proxy_core.control.route_book import RouteBook, set_by
from proxy_core.errors import JournalUnavailable
from proxy_core.journal.journal import Journal
from proxy_core.policies.stats import PolicyStats
from proxy_core.routing.pool import Pool
from proxy_core.routing.router import Router
from proxy_core.routing.upstreams import Upstreams
from proxy_core.sessions.prices import PriceBook
from proxy_core.settings import JournalSettings, Settings
from proxy_core.settings_sources import load

CANARY = "sk-canary-7f3a19c2d4e5f6a7b8c9d0e1"
FIRST = """
policies:
  - use: string_replacement
    params: {replacements: [[a, b]]}
"""
SECOND = FIRST.replace("[a, b]", "[a, c]")


class Watched:
    """The books, the file that they come from, and the watch over all of it."""

    def __init__(self, file: Path, book: PolicyBook, routes: RouteBook, watch: ConfigWatch, journal: Journal) -> None:
        self.file = file
        self.book = book
        self.routes = routes
        self.watch = watch
        self.journal = journal
        self.applied: list[Settings] = []

    def word(self) -> str:
        """What `a` is replaced by."""
        params = self.book.info("string_replacement").params
        return str(next(one.value for one in params if one.name == "replacements")[0][1])

    def write(self, text: str) -> None:
        """In place of the file, as careful editors do."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.file)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture
async def watched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Watched]:
    caplog.set_level(logging.INFO, "proxy_core")
    file = tmp_path / "luthien.yaml"
    file.write_text(FIRST)
    journal = await Journal.open(JournalSettings(), tmp_path)
    environ = {"TEAM_KEY": CANARY}

    def loaded() -> object:
        return load(file, {}, environ, None)

    settings = load(file, {}, environ, None).settings
    book = PolicyBook(settings, journal=journal, feed=Feed(), stats=PolicyStats())
    upstreams = Upstreams(settings)
    router = Router(settings, upstreams)
    clock = asyncio.get_running_loop().time
    routes = RouteBook(
        settings,
        router=router,
        upstreams=upstreams,
        journal=journal,
        feed=Feed(),
        prices=PriceBook(clock),
        pool=Pool(upstreams, settings.routing, clock=clock),
        clock=clock,
    )
    found: Watched
    watch = ConfigWatch(
        load=loaded,  # type: ignore[arg-type]
        book=book,
        routes=routes,
        apply=lambda settings: found.applied.append(settings),
        file=file,
        started_with=settings,
        look_every_s=0.02,
        settle_s=0.05,
    )
    found = Watched(file, book, routes, watch, journal)
    yield found
    await watch.stop()
    await journal.close()


async def test_a_changed_file_is_taken_in_by_itself(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.watch.start()
    watched.write(SECOND)
    await watched.until(lambda: watched.word() == "c")
    await watched.until(lambda: "luthien.yaml changed string_replacement: replacements" in caplog.text)
    (change,) = await watched.journal.store.control_changes(9)
    assert (change.source, change.who, change.what) == ("file", "luthien.yaml", "string_replacement")
    assert (change.before, change.after) == (
        {"params": {"replacements": [["a", "b"]]}},
        {"params": {"replacements": [["a", "c"]]}},
    )


async def test_a_file_that_is_still_being_written_is_not_read(watched: Watched) -> None:
    watched.watch.start()
    for length in range(0, len(SECOND), 9):
        watched.file.write_text(SECOND[:length])  # an empty file would be valid, and without any policy
        await asyncio.sleep(0.02)
        assert watched.word() == "b"
    watched.file.write_text(SECOND)
    await watched.until(lambda: watched.word() == "c")
    assert len(await watched.journal.store.control_changes(9)) == 1


async def test_a_file_that_is_gone_stays_in_force(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.watch.start()
    watched.file.unlink()
    await watched.until(lambda: "luthien.yaml is gone; what it said stays in force" in caplog.text)
    assert watched.word() == "b"
    watched.write(SECOND)
    await watched.until(lambda: watched.word() == "c")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("policies: [", "luthien.yaml:1: "),
        (FIRST + "  - {use: string_replacment}\n", "policies[1].use (file luthien.yaml:5): no policy is called"),
        (FIRST.replace("[[a, b]]", "[[a]]"), "policies[0].params.replacements[0][1] (file luthien.yaml:4): missing"),
        (FIRST + "holds: {max_per_key: 0}\n", "holds.max_per_key (file luthien.yaml:5): input should be greater"),
        (
            FIRST + "  - use: string_replacement\n    params: {replacements: [[a, b]]}\n",
            "policies[1].name (file luthien.yaml:5): ",
        ),
        (
            FIRST + "interceptors: [{type: printr}]\n",
            "interceptors[0].type (file luthien.yaml:5): no interceptor has the type 'printr'",
        ),
        (FIRST + "    mood: x\n", "unknown setting policies[0].mood (file luthien.yaml:5); did you mean mode?"),
    ],
)
async def test_an_invalid_file_changes_nothing_and_names_the_line(
    watched: Watched, caplog: pytest.LogCaptureFixture, text: str, fault: str
) -> None:
    before = watched.book.chains
    watched.write(text)
    assert not await watched.watch.reload()
    assert fault in caplog.text
    assert "the one before it stays in force" in caplog.text
    assert (watched.book.chains is before, watched.applied) == (True, [])
    assert await watched.journal.store.control_changes(9) == []
    watched.write(SECOND)
    assert await watched.watch.reload()
    assert watched.word() == "c"


async def test_holds_keys_and_log_level_change_in_the_same_moment(watched: Watched) -> None:
    sections = "holds: {max_per_key: 3}\nkeys: {team: {key: '${TEAM_KEY}'}}\nlogging: {level: DEBUG}\n"
    words_then: list[str] = []
    watched.watch._apply = lambda settings: (watched.applied.append(settings), words_then.append(watched.word()))  # type: ignore[assignment,func-returns-value]
    watched.write(SECOND + sections)
    assert await watched.watch.reload()
    assert words_then == ["c"]
    (settings,) = watched.applied
    assert (settings.holds.max_per_key, settings.logging.level, list(settings.keys)) == (3, "DEBUG", ["team"])
    changes = {one.what: one for one in await watched.journal.store.control_changes(9)}
    assert set(changes) == {"string_replacement", "holds", "keys", "logging"}
    assert changes["keys"].after["team"]["key"] == "********"
    assert changes["logging"].after["level"] == "DEBUG"
    await watched.journal.close()
    everything = b"".join(file.read_bytes() for file in watched.file.parent.glob("luthien.db*"))
    assert CANARY.encode() not in everything


async def test_other_settings_wait_for_the_next_start(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.write(FIRST + "server: {port: 4444, drain_s: 3}\nrouting: {max_connections: 9}\nlogging: {format: json}\n")
    assert await watched.watch.reload()
    assert (
        "luthien.yaml changed server.port, server.drain_s, routing.max_connections, logging.format, "
        "which takes effect at the next start" in caplog.text
    )
    caplog.clear()
    assert await watched.watch.reload()
    assert "nothing in it has changed" in caplog.text
    assert watched.book.settings.server.port == 4000
    caplog.clear()
    watched.write(FIRST + "server: {drain_s: 4}\n")
    assert await watched.watch.reload()
    (said,) = [one.getMessage() for one in caplog.records if "next start" in one.getMessage()]
    assert said == "luthien.yaml changed server.drain_s, which takes effect at the next start", "the others are what runs again"


async def test_a_policy_that_needs_what_waits_for_the_next_start_is_refused(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    routed = "  - {use: set_backend, params: {upstream: elsewhere}}\n"
    watched.write(FIRST + routed + "upstreams: {elsewhere: {api: openai, base_url: 'http://localhost:9'}}\n")
    assert not await watched.watch.reload()
    assert "elsewhere" in caplog.text
    assert [one.name for one in watched.book.infos()] == ["string_replacement"]


async def test_a_journal_in_trouble_keeps_the_configuration(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(record: object) -> asyncio.Future[None]:
        raise JournalUnavailable("the store is full")

    watched.journal.append = refuse  # type: ignore[method-assign]
    watched.write(SECOND)
    assert not await watched.watch.reload()
    assert "the store is full" in caplog.text
    assert watched.word() == "b"


async def test_a_policy_of_ones_own_is_read_again(watched: Watched) -> None:
    folder = watched.file.parent / "policies"
    folder.mkdir()
    own = "from proxy_core.policies.base import ControlPolicy\nclass MyOwn(ControlPolicy):\n    summary = 'SUMMARY'\n"
    (folder / "my_own.py").write_text(own)
    watched.write(FIRST + "  - use: my_own\n")
    assert await watched.watch.reload()
    watched.watch.start()
    (folder / "my_own.py").write_text(own.replace("SUMMARY", "another"))
    await watched.until(lambda: watched.book.info("my_own").summary == "another")


RULES = (
    FIRST
    + """
routing:
  sensitivity: {keywords: [first-canary]}
  cost: {max_prompt_length_for_local: 5}
  models: {"gpt-*": ollama}
"""
)


async def test_routing_changes_in_the_same_moment_and_is_recorded_without_keywords(watched: Watched) -> None:
    watched.watch.start()
    watched.write(RULES)
    await watched.until(lambda: watched.routes.info().keywords == 1)
    values = {one.name: (one.value, one.default) for one in watched.routes.info().rules}
    assert values["cost.max_prompt_length_for_local"] == (5, 5)
    watched.write(RULES.replace("first-canary", "other-canary").replace("_local: 5", "_local: 6"))
    assert await watched.watch.reload()
    second, first = (one for one in await watched.journal.store.control_changes(9) if one.what == "routing")
    assert (first.who, first.source, second.digest_before) == ("luthien.yaml", "file", first.digest_after)
    assert second.digest_after == watched.routes.info().rules_digest
    assert len({first.digest_before, first.digest_after, second.digest_after}) == 3
    assert first.after == {
        "sensitivity.keywords": "1",
        "cost.max_prompt_length_for_local": 5,
        "models": {"gpt-*": "ollama"},
    }
    assert (second.before["sensitivity.keywords"], second.after["sensitivity.keywords"]) == ("1", "1 others")
    await watched.journal.close()
    everything = b"".join(file.read_bytes() for file in watched.file.parent.glob("luthien.db*"))
    assert b"first-canary" not in everything


async def test_what_an_operator_set_lies_over_the_file_until_that_says_otherwise(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.write(RULES)
    assert await watched.watch.reload()
    await watched.routes.set_rules({"cost.max_prompt_length_for_local": 50, "cost.chars_per_token": 3}, who="ann")

    def length() -> object:
        return next(one.value for one in watched.routes.info().rules if one.name == "cost.max_prompt_length_for_local")

    watched.write(RULES.replace("first-canary", "other-canary"))
    assert await watched.watch.reload()
    assert length() == 50
    assert watched.routes.info().source.startswith("operator ann at ")
    assert "what ann set lies over the configuration: cost.max_prompt_length_for_local 50" in caplog.text
    watched.write(RULES.replace("_local: 5", "_local: 6"))
    assert await watched.watch.reload()
    assert length() == 6
    assert "the configuration holds, not what ann set: cost.max_prompt_length_for_local 50 → 6" in caplog.text
    assert watched.routes.info().source.startswith("operator ann at "), "the other threshold is still hers"
    recorded = await watched.journal.store.latest_routing_overrides()
    assert recorded["routing"].override["params"] == {"cost.chars_per_token": 3}
    assert set_by(recorded["routing"])[0] == "ann"


async def test_a_changed_file_of_rules_is_taken_in_by_itself(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    rules = watched.file.parent / "rules.json"
    rules.write_text('{"sensitivity": {"keywords": ["a"]}, "cost": {}}')
    watched.write(FIRST + "routing: {policy_file: rules.json}\n")
    assert await watched.watch.reload()
    watched.watch.start()
    rules.write_text('{"sensitivity": {"keywords": ["a", "b"]},\n "cost": {"max_prompt_length": 3}}')
    await watched.until(lambda: "was not taken" in caplog.text)
    assert "rules.json:2: $.cost.max_prompt_length: unknown key; did you mean max_prompt_length_for_local?" in caplog.text
    assert watched.routes.info().keywords == 1
    rules.write_text('{"sensitivity": {"keywords": ["a", "b"]}, "cost": {}}')
    await watched.until(lambda: watched.routes.info().keywords == 2)


async def test_routing_to_an_upstream_that_does_not_run_is_refused_with_its_line(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    upstreams = "upstreams: {ollama: {}, later: {api: openai, base_url: 'http://localhost:9'}}\n"
    watched.write(RULES.replace('gpt-*": ollama', 'gpt-*": later') + upstreams)
    assert not await watched.watch.reload()
    assert "routing.models.gpt-* (file luthien.yaml:9): no upstream that runs is called 'later'" in caplog.text
    watched.write(RULES.replace('gpt-*": ollama', 'gpt-*": olama'))
    assert not await watched.watch.reload()
    assert "no upstream is called 'olama'; did you mean ollama?" in caplog.text
    assert watched.routes.info().keywords == 0
