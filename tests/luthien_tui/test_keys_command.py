"""`luthien keys`: made, listed and revoked on the command line; the key itself is seen once."""

from __future__ import annotations

import json
from pathlib import Path

from tests.luthien_tui.command import luthien


def test_a_key_is_shown_once_and_stored_nowhere(tmp_path: Path) -> None:
    made = luthien(tmp_path, "keys", "create", "ci", "--models", "gpt-4o-mini, claude-*", "--rpm", "60", "--usd-per-day", "2.5")
    assert made.returncode == 0
    key = made.stdout.strip()
    assert key.startswith("lth_")
    assert len(key) == 47
    assert "cannot be shown again" in made.stderr
    assert "server.auth" in made.stderr
    listed = luthien(tmp_path, "keys", "list")
    assert listed.stdout.split()[:3] == ["ci", f"{key[:8]}…", "active"]
    assert "gpt-4o-mini, claude-*; 60 requests/min; $2.5 a day" in listed.stdout
    assert key not in listed.stdout
    for file in (tmp_path / "data").rglob("*"):
        assert file.is_dir() or key.encode() not in file.read_bytes(), file
    assert (tmp_path / "data" / "luthien.db").stat().st_mode & 0o777 == 0o600


def test_json_in_and_out(tmp_path: Path) -> None:
    made = json.loads(luthien(tmp_path, "keys", "create", "ci", "--tpm", "1000", "--json").stdout)
    assert made["key"].startswith("lth_")
    assert (made["name"], made["limits"]) == ("ci", {"tpm": 1000})
    assert json.loads(luthien(tmp_path, "keys", "revoke", "ci", "--json").stdout)["status"] == "revoked"
    (one,) = json.loads(luthien(tmp_path, "keys", "list", "--json").stdout)["keys"]
    assert (one["name"], one["status"], one["hint"]) == ("ci", "revoked", made["key"][:8])
    assert "sha256" not in one
    assert made["key"] not in json.dumps(one)


def test_what_cannot_be(tmp_path: Path) -> None:
    assert luthien(tmp_path, "keys", "create", "ci").returncode == 0
    for arguments, words in (
        (("create", "ci"), "already"),
        (("create", "no name"), "no name for a key"),
        (("create", "x", "--rpm", "0"), "--rpm"),
        (("create", "x", "--usd-per-month", "-1"), "--usd-per-month"),
        (("create", "x", "--usd-per-day", "nan"), "--usd-per-day"),
        (("revoke", "nobody"), "no key 'nobody'"),
    ):
        refused = luthien(tmp_path, "keys", *arguments)
        assert refused.returncode == 2, arguments
        assert words in refused.stderr
        assert refused.stdout == ""
    assert luthien(tmp_path, "keys", "revoke", "ci").returncode == 0
    assert "already" in luthien(tmp_path, "keys", "revoke", "ci").stdout
    assert luthien(tmp_path, "keys", "create", "ci").returncode == 0


def test_keys_of_the_configuration_are_listed_and_not_shown(tmp_path: Path) -> None:
    secret = "a-key-of-the-configuration"
    file = tmp_path / "luthien.yaml"
    file.write_text(f"server: {{auth: both}}\nkeys: {{alice: {{key: {secret}}}, bob: {{key: other-key, active: false}}}}\n")
    made = luthien(tmp_path, "keys", "create", "ci", "--config", str(file))
    assert made.returncode == 0
    assert "server.auth" not in made.stderr
    listed = luthien(tmp_path, "keys", "list", "--config", str(file))
    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [["alice", "active"], ["bob", "revoked"]]
    shown = luthien(tmp_path, "config", "show", "--config", str(file))
    assert secret not in listed.stdout + shown.stdout
    refused = luthien(tmp_path, "keys", "revoke", "alice", "--config", str(file))
    assert refused.returncode == 2
    assert "keys.alice.active" in refused.stderr
