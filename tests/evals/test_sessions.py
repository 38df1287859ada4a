"""The count of recovered sessions: of traffic through a real gateway, and of answers that are wrong on purpose."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from evals.loopback_http import Planned
from evals.session_requests import Asked, expanded, recorded_wire
from evals.sessions import Found, as_data, run, score

SYSTEM = {"role": "system", "content": "Help."}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def chat_answer(text: str) -> str:
    choice = {"index": 0, "message": assistant(text), "finish_reason": "stop"}
    return json.dumps({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sessions = [
        {
            "session_id": f"twin-{number}",
            "messages": [SYSTEM, user("Hello"), assistant(f"I am {number}"), user("More"), assistant("Done")],
            "request_points": [2, 4],
        }
        for number in range(3)
    ]
    variants = [
        {"session_id": "twin-0", "kind": "regenerate", "after_turn": 1, "messages_prefix": 4, "replace_last": None},
        {"session_id": "twin-1", "kind": "edit_last_user", "after_turn": 1, "messages_prefix": 4, "replace_last": user("Less")},
    ]
    shared = {"api": "openai-chat", "request_headers": {"X-Thread": "t", "Accept": "*/*"}, "status": 200, "stream": False}
    wire = [
        {
            **shared,
            "session_id": "recording",
            "turn": turn,
            "link": link,
            "parent_turn": parent,
            "request_body": {"model": "m", "metadata": {"k": "v"}, "messages": messages},
            "response_body": chat_answer("Hi"),
        }
        for turn, link, parent, messages in (
            (0, "first", None, [user("One")]),
            (1, "extends", 0, [user("One"), assistant("Hi"), user("Two")]),
            (2, "identical", 0, [user("One")]),
        )
    ]
    turn = {
        "session_id": "cli",
        "t": 1.0,
        "client": "cli 1",
        "path": "/v1/chat/completions",
        "request_headers": {"x-session-id": "ses_1"},
        "request_body": json.dumps({"model": "m", "messages": [user("Hello")]}),
        "status": 200,
        "response_headers": {"Content-Type": "application/json"},
        "response_body": chat_answer("Hi"),
        "native_session_id": "ses_1",
        "side_request": None,
    }
    for name, rows in (
        ("sessions", sessions),
        ("session_variants", variants),
        ("sessions_wire", wire),
        ("agent_cli_traffic", [turn]),
    ):
        with gzip.open(tmp_path / f"{name}.jsonl.gz", "wt", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
    return tmp_path


async def test_every_session_is_recovered(folder: Path) -> None:
    scores = await run(folder, None, 1)
    assert [(one.name, one.sessions, one.exact, one.f1) for one in scores] == [
        ("sessions", 3, 3, 1.0),
        ("sessions_wire", 2, 2, 1.0),
        ("sessions_wire, stripped", 2, 2, 1.0),
        ("agent_cli_traffic", 1, 1, 1.0),
        ("agent_cli_traffic, stripped", 1, 1, 1.0),
    ]
    named = scores[3]
    assert (named.named, named.named_right, named.links) == (1, 1, {"header": 1})
    assert all(one["met"] for one in as_data(scores))


def test_the_same_seed_gives_the_same_order(folder: Path) -> None:
    assert expanded(folder, None, 5) == expanded(folder, None, 5)
    assert {one.kind for one in expanded(folder, None, 5)} == {"opening", "next", "regenerate", "edit"}
    assert len({one.session for one in expanded(folder, 2, 5)}) == 2


def test_stripped_requests_name_nothing(folder: Path) -> None:
    for one in recorded_wire(folder, None, 1, stripped=True):
        assert dict(one.headers) == {"Accept": "*/*"}
        assert b"metadata" not in one.body
        assert not one.named


REFUSED = '{"error": {"message": "filtered"}}'


def test_a_recording_made_again_is_another_session(tmp_path: Path) -> None:
    opening, second = [user("One")], [user("One"), assistant("Hi"), user("Two")]
    asked = [
        (opening, REFUSED, "old/1"),
        (opening, chat_answer("Hi"), "old/1"),
        (second, chat_answer("Well"), "old/1"),
        (second, chat_answer("Or so"), "old/1"),
        (opening, REFUSED, "new/2"),
        (opening, chat_answer("Hi"), "newer/3"),
        (second, chat_answer("Well"), "newer/3"),
    ]
    shared = {"session_id": "r", "api": "openai-chat", "status": 200, "stream": False, "link": "identical", "parent_turn": 0}
    with gzip.open(tmp_path / "sessions_wire.jsonl.gz", "wt", encoding="utf-8") as lines:
        for turn, (messages, answer, program) in enumerate(asked):
            row = {"turn": turn, "request_headers": {"User-Agent": program}, "request_body": {"model": "m", "messages": messages}}
            lines.write(json.dumps({**shared, **row, "response_body": answer}) + "\n")
    found = [one.session for one in recorded_wire(tmp_path, None, 1, stripped=False)]
    assert found == ["r#0", "r#0", "r#0", "r#0", "r#4", "r#5", "r#5"]


def test_what_was_mixed_up_is_told() -> None:
    def found(session: str, told: str, kind: str = "next") -> Found:
        return Found(Asked(session, kind, "somewhere", "/", [], b"", Planned(200, [], b""), named=True), told, "prefix")

    mixed = score("sessions", [found("a", "1"), found("a", "1"), found("b", "1"), found("c", "2"), found("c", "3", "edit")])
    assert (mixed.sessions, mixed.exact) == (3, 0)
    assert mixed.precision == pytest.approx(1 / 3)
    assert mixed.recall == pytest.approx(1 / 2)
    assert mixed.misses == {
        "somewhere: together with one request of another session": 1,
        "somewhere: together with requests of another session": 1,
        "somewhere: split at 'edit' (told by prefix)": 1,
    }
    assert not mixed.met
