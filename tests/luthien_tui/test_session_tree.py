"""Sub-agents stand under their parents, whatever clients say of them."""

from __future__ import annotations

import time

import pytest

from luthien_tui.session_tree import BY_NAME, SORTS, relative_name, session_lines
from proxy_core.control.session_infos import SessionInfo, Totals


def session(name: str, parent: str = "", last: float = 0.0) -> SessionInfo:
    return SessionInfo(id=name, parent=parent, started_at=0.0, last_at=last, totals=Totals())


TREE = [session("a", last=5), session("a/1", "a", 9), session("a/2", "a", 3), session("b", last=7), session("a/1/k", "a/1", 1)]


@pytest.mark.parametrize(
    ("sort", "is_reversed", "shown"),
    [
        ("last", False, ["a", "├ a/1", "│ └ a/1/k", "└ a/2", "b"]),
        ("last", True, ["b", "a", "├ a/2", "└ a/1", "  └ a/1/k"]),
        ("name", False, ["a", "├ a/1", "│ └ a/1/k", "└ a/2", "b"]),
        ("name", True, ["b", "a", "├ a/2", "└ a/1", "  └ a/1/k"]),
    ],
)
def test_each_level_is_sorted(sort: str, is_reversed: bool, shown: list[str]) -> None:
    lines = session_lines(TREE, BY_NAME[sort], is_reversed=is_reversed, folded=())
    assert [line.lead + line.info.id for line in lines] == shown


def test_a_folded_session_says_how_many_it_hides() -> None:
    lines = session_lines(TREE, BY_NAME["last"], is_reversed=False, folded={"a"})
    assert [(line.info.id, line.below, line.is_folded) for line in lines] == [("a", 3, True), ("b", 0, False)]


def test_parents_that_are_unknown_themselves_or_in_a_circle_hide_nobody() -> None:
    odd = [session("x", "y"), session("y", "x"), session("z", "z"), session("q", "gone"), session("p", "x")]
    for sort in SORTS:
        lines = session_lines(odd, sort, is_reversed=False, folded=())
        assert sorted(line.info.id for line in lines) == ["p", "q", "x", "y", "z"]


def test_a_thousand_levels_are_no_trouble() -> None:
    chain = [session(f"n{number}", f"n{number - 1}") for number in range(1_000)]
    started = time.thread_time()
    lines = session_lines(chain[::-1], BY_NAME["last"], is_reversed=False, folded=())
    assert time.thread_time() - started < 0.5
    assert [line.info.id for line in lines] == [f"n{number}" for number in range(1_000)]
    assert max(len(line.lead) for line in lines) <= 12


def test_a_name_is_short_only_where_it_is_told_from_its_parent() -> None:
    assert relative_name("ops-7f/sub-1", "ops-7f") == "/sub-1"
    assert relative_name("ops-7fx", "ops-7f") == "ops-7fx"
    assert relative_name("other", "ops-7f") == "other"
