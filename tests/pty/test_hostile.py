"""Text of the traffic never acts on the terminal: what a hostile answer writes is compared with its harmless twin."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import aiohttp
import pytest

from tests.fault_upstream import FaultUpstream
from tests.pty.conftest import CHAT
from tests.pty.terminal import Terminal, sequences, stray_controls

pytestmark = pytest.mark.pty

PAYLOADS = (
    "\x1b]52;c;UFdORUQ=\x07",
    "\x1b]0;PWNED\x07",
    "\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x1b[2J\x1b[H\x1b[?1049l\x1b[6n\x1b[8m",
    "\x1bP+q544e\x1b\\\x1b_G;\x1b\\",
    "\x9b31m\x9d0;PWNED\x9c",
    "\x07\x08\x0d\x0b\x0c\x7f",
    "\u202egnp.exe\u2066\u200b",
    "[@click=app.quit]press[/] [/nope] [link=http://evil.example]x[/link] \\[",
)
HOSTILE = "START" + "".join(f"<{payload}>" for payload in PAYLOADS) + "END"
HARMLESS = "START" + re.sub(r"[^ -~]", "x", HOSTILE[5:-3]) + "END"
TABS = 7


async def panes(start: Callable[..., Terminal], upstream: FaultUpstream, client: aiohttp.ClientSession, text: str) -> Terminal:
    """Let `text` come in everywhere it can, and look at every pane and the log; the finished terminal."""
    completion = {
        "id": "x",
        "object": "chat.completion",
        "model": text,
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "role": "assistant",
                    "content": text,
                    "tool_calls": [{"id": "t1", "type": "function", "function": {"name": text, "arguments": text}}],
                },
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    }
    async with start() as terminal:
        port = await terminal.port()
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        for body, status in ((json.dumps(completion, ensure_ascii=False), 200), (text, 500)):
            headers = {
                "x-fault": json.dumps({"body": body, "status": status}),
                "x-session-id": re.sub(r"[^ -~]", "", text)[:40],
                "user-agent": re.sub(r"[^ -~\x80-\x9f]", "", text),
            }
            asked = {**CHAT, "model": text, "messages": [{"role": "user", "content": text}]}
            data = json.dumps(asked, ensure_ascii=False).encode()
            async with client.post(url, data=data, headers={**headers, "content-type": "application/json"}) as answer:
                await answer.read()
        await terminal.shows("500")
        for row in ("g", "G"):
            terminal.send(row)
            terminal.send("\r")
            for _ in range(TABS):
                seen = len(terminal.output)
                await terminal.until(lambda seen=seen: len(terminal.output) > seen)  # type: ignore[misc]
                terminal.send("l")
            terminal.send("\x1b")
            seen = len(terminal.output)
            await terminal.until(lambda seen=seen: len(terminal.output) > seen)  # type: ignore[misc]
        terminal.send("g")  # an escape takes the key after it along where both come at once
        terminal.send("3")
        await terminal.shows("by last activity")
        terminal.send("\r")
        await terminal.shows("turn 1/")
        terminal.send("z")
        await terminal.shows("arguments")
        terminal.send("8")
        await terminal.shows("1 Live")
        terminal.send("q")
        assert await terminal.ended() == 0
        assert terminal.screen_left
        assert terminal.modes_restored
        return terminal


async def test_hostile_text_is_shown_and_never_obeyed(
    start: Callable[..., Terminal], upstream: FaultUpstream, client: aiohttp.ClientSession
) -> None:
    harmless = await panes(start, upstream, client, HARMLESS)
    hostile = await panes(start, upstream, client, HOSTILE)
    assert "START" in harmless.text
    assert "\u241b]52" in hostile.text, "the text was not shown at all"
    assert "[@click=app.quit]press[/]" in hostile.text
    assert sequences(bytes(hostile.output)) <= sequences(bytes(harmless.output))
    assert stray_controls(bytes(hostile.output)) == stray_controls(bytes(harmless.output)) == set()
    for forbidden in (b"\x1b]", b"UFdORUQ=\x07", b"\x1b[2J\x1b[H\x1b[?1049l", b"\x1bP", b"\x1b_", "\u202e".encode()):
        assert hostile.output.count(forbidden) == harmless.output.count(forbidden), forbidden
