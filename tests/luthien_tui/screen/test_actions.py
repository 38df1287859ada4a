"""One registry: every action exists, every key resolves, and the page of keys is current."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from luthien_tui.actions import ACTIONS, BY_NAME, ViewName, bindings, keys_page
from luthien_tui.app import LuthienApp
from tests.luthien_tui.fake_plane import FakePlane, sample_plane
from tests.luthien_tui.screen.conftest import UPDATE
from tests.luthien_tui.screen.console import console

PAGE = Path(__file__).parents[3] / "docs" / "keys.md"


def test_every_action_is_a_method_and_explains_itself() -> None:
    for action in ACTIONS:
        method = getattr(LuthienApp, f"action_{action.name}", None)
        assert inspect.isfunction(method), action.name
        assert method.__qualname__.startswith(("LuthienApp.", "ViewActions.")), f"{action.name} would override nothing"
        assert action.title and action.description and not action.description.endswith(".")


@pytest.mark.parametrize("view", ["live", "holds", "sessions", "policies", "routing", "log"])
def test_no_key_is_given_twice_in_a_view_and_none_stops_the_process(view: ViewName) -> None:
    keys = [key for action in ACTIONS for key in action.keys if not action.views or view in action.views]
    assert len(keys) == len(set(keys))
    assert "ctrl+z" not in keys


def test_what_decides_is_named_as_such() -> None:
    assert {action.name for action in ACTIONS if action.by_key_only} == {"approve", "edit_held", "deny", "more_time"}
    assert all(action.views == ("holds",) for action in ACTIONS if action.by_key_only)


def test_bindings_carry_the_registry() -> None:
    made = {binding.id: binding for binding in bindings()}
    assert set(made) == set(BY_NAME)
    assert made["open"].key == "enter"


def test_the_page_of_keys_is_current() -> None:
    if UPDATE:
        PAGE.write_text(keys_page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == keys_page()


async def test_ctrl_z_does_nothing() -> None:
    async with console(sample_plane()) as shown:
        before = shown.text
        await shown.press("ctrl+z")
        assert shown.text == before
        assert "ctrl+z" not in {key for key, _ in shown.app._bindings}


async def test_only_what_works_here_is_offered() -> None:
    async with console(FakePlane()) as shown:
        names = {action.name for action in shown.app.valid_actions()}
        assert "copy_setup" in names
        assert not names & {"open", "copy", "next_tab", "search", "close"}
        await shown.press("8")
        names = {action.name for action in shown.app.valid_actions()}
        assert "search" in names
        assert not names & {"edit_filter", "copy_setup"}


async def test_help_finds_an_action_and_runs_it() -> None:
    async with console(sample_plane()) as shown:
        await shown.press("question_mark")
        await shown.type("own messages")
        assert "Show the program's own messages" in shown.text
        assert "Choose the colours" not in shown.text
        await shown.press("enter")
        await shown.until(lambda: shown.app.view == "log")


async def test_palette_finds_an_action_and_runs_it() -> None:
    async with console(sample_plane()) as shown:
        await shown.press("ctrl+p")
        await shown.type("freeze")
        await shown.until(lambda: "Freeze" in shown.text)
        await shown.press("down", "enter")
        await shown.until(lambda: shown.app.live.table.frozen)
