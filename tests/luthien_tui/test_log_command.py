"""`luthien log`: what the journal says, read beside a running gateway; hostile text stays text."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.fault_upstream import Fault, FaultUpstream
from tests.luthien_tui.command import COMMAND, clean_environ, luthien

HOSTILE = "say \x1b]52;c;UFdO\x07 \x9b31m \u202e [@click=app.quit]x[/]\nsecond line"


@pytest.fixture
async def upstream() -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream() as running:
        yield running


@pytest.fixture
async def address(tmp_path: Path, upstream: FaultUpstream) -> AsyncIterator[str]:
    """A gateway of its own process, in front of the upstream."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("--no-ui", "--port", "0", "--base-url", upstream.url, "--type", "openai"),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=clean_environ(tmp_path),
    )
    assert process.stderr is not None
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), 30)).decode()
        yield line.split("http://")[1].split(" ")[0]
        process.terminate()
        await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0


async def ask(address: str, model: str, text: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    async with aiohttp.ClientSession() as session:
        headers = {"authorization": "Bearer sk-canary-7f3a19c2d4"}
        async with session.post(f"http://{address}/v1/chat/completions", json=body, headers=headers) as answer:
            await answer.read()
            return answer.status


async def log(folder: Path, *arguments: str) -> str:
    result = await asyncio.to_thread(luthien, folder, "log", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


async def test_rows_are_oldest_first_and_filtered(tmp_path: Path, address: str, upstream: FaultUpstream) -> None:
    await ask(address, "model-a", "first")
    upstream.faults.append(Fault(status=429))
    await ask(address, "model-b", "second")
    await ask(address, "model-c", "third")
    rows = [json.loads(line) for line in (await log(tmp_path, "--json")).splitlines()]
    assert [row["model"] for row in rows] == ["model-a", "model-b", "model-c"]
    assert [row["status"] for row in rows] == [200, 429, 200]
    assert (rows[0]["outcome"], rows[1]["outcome"]) == ("ok", "error")
    assert "model-b" in (text := await log(tmp_path, "--filter", "status>=400"))
    assert "model-a" not in text
    assert [json.loads(line)["model"] for line in (await log(tmp_path, "--json", "-n", "1")).splitlines()] == ["model-c"]
    assert await log(tmp_path, "-n", "0") == ""


async def test_times_are_finer_than_the_clock_of_the_loop(tmp_path: Path, address: str) -> None:
    for _ in range(3):
        await ask(address, "model-a", "first")
    rows = [json.loads(line) for line in (await log(tmp_path, "--json")).splitlines()]
    for name in ("ttft_ms", "total_ms", "overhead_ms"):
        times = [row[name] for row in rows]
        assert min(times) > 0, (name, times)
        assert any(time % 1 for time in times), (name, times)


async def test_hostile_text_is_visible_and_secrets_are_absent(tmp_path: Path, address: str) -> None:
    await ask(address, "model\x1b[31m-x", HOSTILE)
    text = await log(tmp_path, "--body")
    assert not [sign for sign in text if (ord(sign) < 0x20 and sign != "\n") or 0x7F <= ord(sign) < 0xA0 or sign == "\u202e"]
    assert "model\u241b[31m-x" in text
    assert "[@click=app.quit]x[/]" in text
    found = await log(tmp_path, "--body", "--json")
    assert found.isascii()
    assert found.count("\n") == 1
    assert json.loads(found)["model"] == "model\x1b[31m-x"
    assert json.loads(json.loads(found)["request_body"])["messages"][0]["content"] == HOSTILE
    for output in (text, found):
        assert "canary" not in output


async def test_following_prints_new_ones_as_they_end(tmp_path: Path, address: str) -> None:
    await ask(address, "before", "x")
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *("log", "--follow", "--json", "-n", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=clean_environ(tmp_path),
    )
    assert process.stdout is not None
    try:
        assert json.loads(await asyncio.wait_for(process.stdout.readline(), 30))["model"] == "before"
        await ask(address, "after-1", "x")
        await ask(address, "after-2", "x")
        for expected in ("after-1", "after-2"):
            assert json.loads(await asyncio.wait_for(process.stdout.readline(), 30))["model"] == expected
        process.send_signal(2)
        _, err = await asyncio.wait_for(process.communicate(), 30)
        assert (process.returncode, err) == (0, b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_no_journal_and_a_damaged_one_are_exit_4(tmp_path: Path) -> None:
    result = luthien(tmp_path, "log")
    assert result.returncode == 4
    assert "there is no journal at" in result.stderr
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "luthien.db").write_bytes(b"not a database " * 1_000)
    for arguments in (["log"], ["--no-ui", "--port", "0"]):
        result = luthien(tmp_path, *arguments)
        assert result.returncode == 4
        assert result.stderr.startswith("luthien: ")
        assert result.stderr.count("\n") == 1


def test_a_database_that_is_down_is_exit_4_without_its_password(tmp_path: Path) -> None:
    url = "postgres://luthien:hunter2@127.0.0.1:1/luthien"
    for arguments in (["log"], ["--no-ui", "--port", "0"]):
        result = luthien(tmp_path, *arguments, "--database-url", url)
        assert result.returncode == 4
        assert result.stderr.count("\n") == 1
        assert "hunter2" not in result.stderr


async def test_json_tells_what_policies_said_and_changed(tmp_path: Path) -> None:
    from proxy_core.journal.journal import Journal
    from proxy_core.journal.records import Sent
    from proxy_core.routing.reasons import Reason
    from proxy_core.settings import JournalSettings
    from proxy_core.verdicts import Stage, Verdict
    from tests.proxy_core.journal.made import intent, outcome

    (tmp_path / "data").mkdir()
    journal = await Journal.open(JournalSettings(), tmp_path / "data")
    plain, asked = intent(journal, b'{"a":1}'), intent(journal, b'{"a":1}', policy_digest="c0ffee")
    said = Verdict(
        policy="p", stage=Stage.REQUEST, mode="enforce", action="modify", reason=Reason.TEXT_REPLACED, message="\x1b]x"
    )
    await journal.append(plain)
    await journal.append(asked)
    await journal.append(
        Sent(
            transaction_id=asked.transaction_id,
            at_ns=1,
            upstream="openai",
            reason="default",
            target=b"/v1/x",
            headers=[],
            body=b'{"a":2}',
            secrets=(),
        )
    )
    await journal.append(outcome(asked.transaction_id, verdicts=(said,), upstream_body=b"given"))
    await journal.close()
    lines = (await log(tmp_path, "--json", "--body")).splitlines()
    first, second = map(json.loads, lines)
    assert (first["policy_digest"], first["verdicts"], first["sent_body"], first["upstream_body"]) == ("", [], None, None)
    assert (second["policy_digest"], second["sent_body"], second["upstream_body"]) == ("c0ffee", '{"a":2}', "given")
    (verdict,) = second["verdicts"]
    assert (verdict["policy"], verdict["action"], verdict["reason"]) == ("p", "modify", "text_replaced")
    assert "\x1b" not in "".join(lines)
