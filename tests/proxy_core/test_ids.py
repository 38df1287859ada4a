"""Names of sessions: apart from each other, fit for a header, and close together where they were made at one time."""

from __future__ import annotations

import re

import pytest

from proxy_core import ids


def test_sessions_of_one_moment_have_names_that_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy_core.ids.time.time_ns", lambda: 1_800_000_000_000_000_000)
    names = {ids.new_session_id() for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch("s-[0-9a-z]{10}", name) for name in names)
    assert len({name[:6] for name in names}) == 1


def test_names_go_on_with_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000_000_000_000
    beginnings = []
    for second in range(5):
        monkeypatch.setattr("proxy_core.ids.time.time_ns", lambda second=second: now + second * 1_000_000_000)
        beginnings.append(ids.new_session_id()[:6])
    assert beginnings == sorted(set(beginnings))
