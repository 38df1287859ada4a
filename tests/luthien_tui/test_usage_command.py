"""`luthien usage`: sums that a person and a program can read; hostile names stay text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy_core.journal.journal import Journal
from proxy_core.settings import JournalSettings
from tests.luthien_tui.command import luthien
from tests.proxy_core.journal.made import STARTED_NS, chat_body, intent, outcome

DAY_NS = 86_400 * 10**9


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A folder with a journal of three transactions on two days."""
    (tmp_path / "data").mkdir(mode=0o700)
    journal = await Journal.open(JournalSettings(), tmp_path / "data")
    endings: list[tuple[int, str, dict[str, Any]]] = [
        (0, "codex", {"input_tokens": 12_345, "output_tokens": 10, "cost_usd": 0.5}),
        (1, "codex", {"input_tokens": 5, "output_tokens": 5, "estimated": True}),
        (1, "\x1b[31m" + "x" * 60, {"outcome": "error", "status": 500}),
    ]
    for day, agent, ended in endings:
        one = intent(journal, chat_body("x"), started_ns=STARTED_NS + day * DAY_NS, agent=agent)
        await journal.append(one)
        await journal.append(outcome(one.transaction_id, **ended))
    await journal.close()
    return tmp_path


async def test_a_table_by_day(folder: Path) -> None:
    lines = luthien(folder, "usage").stdout.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["day", "requests", "errors", "input", "cached", "output", "cost"],
        ["2026-11-19", "2", "1", "5", "-", "5", "-"],
        ["2026-11-18", "1", "0", "12,345", "-", "10", "$0.5000"],
        ["total", "3", "1", "12,350", "-", "15", "$0.5000"],
    ]
    assert lines[4].startswith("1 with a price that is not known")
    assert lines[5].startswith("1 with estimated tokens")


async def test_json_by_several_and_since(folder: Path) -> None:
    found = json.loads(luthien(folder, "usage", "--by", "day, agent", "--since", "2026-11-19", "--json").stdout)
    assert (found["by"], found["total"]["requests"], found["total"]["estimated"]) == (["day", "agent"], 2, 1)
    assert [(one["day"], one["agent"][:5], one["requests"], one["cost_usd"]) for one in found["usage"]] == [
        ("2026-11-19", "codex", 1, None),
        ("2026-11-19", "\x1b[31m", 1, None),
    ]
    assert json.loads(luthien(folder, "usage", "--until", "2026-11-18", "--json").stdout)["total"] is None


async def test_hostile_names_are_shown_as_signs_and_cut(folder: Path) -> None:
    text = luthien(folder, "usage", "--by", "agent").stdout
    assert "\x1b" not in text
    assert "␛[31mxxx" in text
    assert "x" * 41 not in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--by", "modle"), "did you mean 'model'"),
        (("--by", ""), "session, agent, model"),
        (("--since", "tomorrow"), "give 7d"),
    ],
)
def test_what_is_no_group_or_time(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    ended = luthien(tmp_path, "usage", *arguments)
    assert (ended.returncode, says in ended.stderr) == (2, True)


@pytest.mark.parametrize("since", ["999999w", "0001-01-01T00:00+14:00"])
def test_long_ago_is_everything(folder: Path, since: str) -> None:
    whole = json.loads(luthien(folder, "usage", "--json").stdout)["total"]
    assert json.loads(luthien(folder, "usage", "--since", since, "--json").stdout)["total"] == whole
    assert json.loads(luthien(folder, "usage", "--until", "9999-12-31", "--json").stdout)["total"] == whole


def test_nothing_recorded(tmp_path: Path) -> None:
    ended = luthien(tmp_path, "usage")
    assert "no journal" in ended.stderr
