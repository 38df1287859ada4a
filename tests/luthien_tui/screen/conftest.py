"""Fixtures of the screen's tests: a fixed time zone, and screens kept as text."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.luthien_tui.screen.idle import wait_for_idle

GOLDENS = Path(__file__).parent / "goldens"
UPDATE = bool(os.environ.get("LUTHIEN_UPDATE_GOLDENS"))


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textual.app.wait_for_idle", wait_for_idle)
    monkeypatch.setattr("textual.pilot.wait_for_idle", wait_for_idle)


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """Compares a screen with the text that is kept of it; LUTHIEN_UPDATE_GOLDENS=1 keeps the new one."""

    def check(name: str, screen: str) -> None:
        path = GOLDENS / f"{name}.txt"
        if UPDATE:
            path.write_text(screen, encoding="utf-8")
        assert path.exists(), f"{name} is not kept yet: run with LUTHIEN_UPDATE_GOLDENS=1 and read it"
        assert screen == path.read_text(encoding="utf-8")

    return check
