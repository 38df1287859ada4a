"""Routes about sessions, agents and changes, on a real gateway: shapes, faults, and files that hostile text cannot break."""

from __future__ import annotations

import json
import os
import re
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest

from proxy_core.api.shapes import AgentList, ChangeList
from proxy_core.control.session_infos import AgentDetail, Dashboard, SessionCounts, SessionDetail, SessionPage
from tests.fault_payloads import TEXT, TOOL_NAME
from tests.gateway_fixtures import RunningGateway
from tests.luthien_tui.command import luthien
from tests.proxy_core.api.test_mcp import token_of
from tests.proxy_core.control.test_sessions import Talk

HOSTILE = "````\n\x1b[2J</pre>\n# Owned\n\u202eevil` | <script> sk-ant-api03-" + "A" * 40
SESSION = "team/one#1"


async def ask(gateway: RunningGateway, target: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {token_of(gateway)}"}
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.get(f"http://{gateway.runtime.control_address}{target}", headers=headers)


async def given(gateway: RunningGateway, kind: type[Any], target: str) -> Any:
    answer = await ask(gateway, target)
    assert answer.status_code == 200, answer.text
    return msgspec.json.decode(answer.content, type=kind)


@pytest.fixture
async def talked(gateway: RunningGateway) -> RunningGateway:
    talk = Talk(gateway, SESSION, **{"x-luthien-agent-id": "a/b", "x-luthien-tags": "team:legal,deep"})
    talk.says(HOSTILE)
    (call_id,) = await talk.send()
    talk.give(call_id, HOSTILE)
    await talk.send()
    return gateway


async def test_lists_and_details(talked: RunningGateway) -> None:
    page = await given(talked, SessionPage, "/api/sessions?tags=team:legal,deep&status=ACTIVE&limit=5&filter=turns%3E1")
    assert [info.id for info in page.sessions] == [SESSION]
    assert page.next is None
    assert page == await talked.plane.sessions()
    detail = await given(talked, SessionDetail, f"/api/session/{quote(SESSION, safe='')}")
    assert detail == await talked.plane.session(SESSION)
    assert [turn.number for turn in (await given(talked, SessionDetail, f"/api/session/{quote(SESSION)}?after=1")).turns] == [2]
    tags = (await ask(talked, "/api/sessions/tags")).json()["tags"]
    assert tags == [
        {"name": "deep", "values": [{"name": "true", "count": 2}]},
        {"name": "team", "values": [{"name": "legal", "count": 2}]},
    ]
    assert [info.id for info in (await given(talked, AgentList, "/api/agents")).agents] == ["a/b"]
    assert (await given(talked, AgentDetail, "/api/agent/a%2Fb")).info.totals.requests == 2
    board = await given(talked, Dashboard, "/api/dashboard")
    assert board.today.requests == 2
    assert board.session_counts == page.counts == SessionCounts(active=1, hits=1, misses=1, created=1)
    assert (await given(talked, ChangeList, "/api/changes")).changes == ()
    whole = (await ask(talked, f"/api/session/{quote(SESSION)}")).text
    assert "sk-ant-api03-AAAA" not in whole


async def test_an_id_may_end_like_a_path(gateway: RunningGateway) -> None:
    await Talk(gateway, "a/export").send()
    assert (await given(gateway, SessionDetail, "/api/session/a%2Fexport")).info.id == "a/export"
    assert (await ask(gateway, "/api/session/a%2Fexport/export")).headers["content-disposition"].endswith('"a-export.md"')
    assert (await ask(gateway, "/api/session/b%2Fexport")).json()["error"]["message"] == "there is no session 'b'"


@pytest.mark.parametrize(
    ("target", "status", "place"),
    [
        ("/api/session/nobody", 404, None),
        ("/api/session/nobody/export", 404, None),
        ("/api/agent/nobody", 404, None),
        ("/api/sessions?limit=0", 422, "limit"),
        ("/api/sessions?cursor=x", 422, "cursor"),
        ("/api/changes?cursor=9999999999999999999999", 422, "cursor"),
        ("/api/sessions?status=asleep", 422, "status"),
        ("/api/sessions?filter=nonsense:1", 422, "filter"),
        ("/api/session/x?limit=1001", 422, "limit"),
        ("/api/session/x/export?format=pdf", 422, "format"),
    ],
)
async def test_faults_name_what_is_wrong(gateway: RunningGateway, target: str, status: int, place: str | None) -> None:
    answer = await ask(gateway, target)
    assert answer.status_code == status
    assert [one["loc"] for one in answer.json().get("detail", [])] == ([[place]] if place else [])


async def test_files(talked: RunningGateway) -> None:
    path = f"/api/session/{quote(SESSION)}/export"
    answer = await ask(talked, path)
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="team-one-1.md"'
    text = answer.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    outside, fence = [], ""
    for line in text.splitlines():
        if fence:
            fence = "" if line == fence else fence
        elif found := re.fullmatch("(`{3,})text", line):
            fence = found[1]
        else:
            outside.append(line)
    assert not fence
    assert "Owned" not in "\n".join(outside) and "Owned" in text
    assert next(line for line in outside if line.startswith("#")) == f"# Session `{SESSION}`"
    assert sum(line.startswith("## ") for line in outside) == 2
    assert f"**calls `{TOOL_NAME}`**" in outside
    assert TEXT in text
    assert "sk-ant-api03-AAAA" not in text

    lines = (await ask(talked, f"{path}?format=jsonl")).text
    assert lines.isascii()
    first, second = [json.loads(line) for line in lines.splitlines()]
    assert (first["session"], first["transaction"]["model"], first["number"]) == (SESSION, "gpt-5.4", 1)
    assert first["said"][0]["blocks"][0]["text"].startswith("````\n\x1b[2J")
    assert first["tool_uses"][0]["answered_by"] == second["transaction"]["transaction_id"]

    folder = talked.data_dir.parent
    for form, told in (("markdown", text), ("jsonl", lines)):
        command = ("export", SESSION, "--format", form, "--data-dir", str(talked.data_dir))
        assert luthien(folder, *command).stdout == told
        file = folder / "out"
        luthien(folder, *command, "-o", str(file))
        assert file.read_text() == told
        assert file.stat().st_mode & 0o777 == 0o600
    (folder / "link").symlink_to(file)
    luthien(folder, *command, "-o", str(folder / "link"))
    assert (folder / "link").is_symlink() and file.read_text() == lines
    os.mkfifo(folder / "pipe")
    reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    luthien(folder, *command, "-o", str(folder / "pipe"))
    with os.fdopen(reader) as piped:
        assert piped.read() == lines
    assert (folder / "pipe").is_fifo()
    refused = luthien(folder, *command, "-o", str(folder))
    assert (refused.returncode, refused.stderr) == (2, f"luthien: --output: {folder} is a folder; name the file to write\n")
    missing = luthien(folder, "export", "nobody", "--data-dir", str(talked.data_dir), "-o", str(folder / "none"))
    assert missing.returncode == 2
    assert missing.stderr == "luthien: the journal has no session 'nobody'\n"
    assert not (folder / "none").exists()
