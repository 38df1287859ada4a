"""The control token: made once, kept, closed to others."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy_core.api.token import control_token
from proxy_core.errors import StoreError


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    first = control_token(tmp_path)
    assert len(first) >= 43
    assert control_token(tmp_path) == first
    assert control_token(tmp_path / "other") != first
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["control-token"]


def test_only_the_user_can_read_it(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        control_token(tmp_path)
    finally:
        os.umask(previous)
    file = tmp_path / "control-token"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    control_token(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600


def test_one_of_the_users_own_is_taken(tmp_path: Path) -> None:
    (tmp_path / "control-token").write_text("a" * 40 + "\n")
    assert control_token(tmp_path) == "a" * 40


def test_an_empty_file_is_filled_and_a_short_token_refused(tmp_path: Path) -> None:
    (tmp_path / "control-token").write_text("")
    assert len(control_token(tmp_path)) >= 43
    (tmp_path / "control-token").write_text("secret")
    with pytest.raises(StoreError, match="too short"):
        control_token(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("b" * 40)
    (tmp_path / "control-token").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="control-token"):
        control_token(tmp_path)


def test_gateways_that_start_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: control_token(tmp_path), range(64)))) == 1
