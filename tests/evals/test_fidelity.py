"""The comparison passes on traffic that is carried faithfully, and tells what is not."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evals.fidelity import Comparison, end_to_end, run, summary
from evals.plain_reader import read_plainly
from evals.recorded import load
from tests.proxy_core.wire.streams import CHAT, MESSAGES, OLLAMA, RESPONSES


def row(path: str, response: bytes, *, api: str = "openai-chat", stream: bool = False, **fields: Any) -> dict[str, Any]:
    return {
        "provider": "somebody",
        "api": api,
        "method": "POST",
        "path": path,
        "query": "beta=true",
        "request_headers": {"Accept": "*/*", "X-Custom": "kept", "connection": "keep-alive"},
        "request_body": '{"model":"m-1","messages":[{"role":"user","content":"hi"}],"unknown":  1}',
        "status": 200,
        "response_headers": {"Content-Type": "text/event-stream" if stream else "application/json", "X-Request-Id": "req_1"},
        "response_body": response.decode(),
        "stream": stream,
        **fields,
    }


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    for name, content in (("cassettes", rows), ("errors", []), ("agent_cli_traffic", [])):
        with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as lines:
            lines.writelines(json.dumps(one) + "\n" for one in content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(
        tmp_path,
        [
            row("/v1/chat/completions", CHAT, stream=True),
            row("/api/v1/chat/completions", b'{"error":{"message":"slow down","type":"tokens"}}', status=429),
            row("/v1/messages", MESSAGES, api="anthropic-messages", stream=True),
            row("/v1/responses", RESPONSES, api="openai-responses", stream=True),
            row("/api/chat", OLLAMA, api="ollama-chat", stream=True, response_headers={"content-type": "application/x-ndjson"}),
            row("/v1/files/f%2F1", b"\x00binary", api="files"),
            row("/model/x/converse", b"{}", api="bedrock-converse"),
        ],
    )
    return tmp_path


async def test_a_faithful_gateway_has_no_differences(folder: Path) -> None:
    result, left_out = await run(folder, None, 3)
    found = summary(result, left_out)
    assert found["differences"] == []
    assert found["rows"] == 6
    assert found["compared"]["response body"] == 6
    assert found["compared"]["decoded tool calls"] == 5
    assert sum(left_out.values()) == 1


def test_a_difference_is_shown_where_it_begins(folder: Path) -> None:
    exchange = next(load(folder, Counter()))
    result = Comparison()
    result.expect(exchange, "same", b"x", b"x")
    result.expect(exchange, "response body", b"a" * 500 + b"b", b"a" * 500 + b"c")
    (difference,) = result.differences
    assert difference.what == "response body"
    assert difference.expected.endswith("b'")
    assert difference.found.endswith("c'")
    assert len(difference.expected) < 100


def test_headers_of_one_hop_do_not_count() -> None:
    headers = [
        ("Connection", "close, X-Hop"),
        ("X-Hop", "1"),
        ("X-Luthien-Upstream", "a"),
        ("Retry-After", " 3 "),
        ("Set-Cookie", "a"),
    ]
    assert end_to_end(headers) == [("retry-after", "3"), ("set-cookie", "a")]


def test_the_plain_reader_reads_the_golden_streams() -> None:
    chat = read_plainly("chat", CHAT, True)
    messages = read_plainly("messages", MESSAGES, True)
    assert chat is not None
    assert messages is not None
    assert chat.usage == {"input": 20, "output": 9, "cached": 4, "reasoning": 3}
    assert chat.tool_calls == [("call_a", "weather", '{"city": "Bonn"}'), ("call_b", "clock", "{}")]
    assert messages.usage == {"input": 127, "output": 42, "cached": 100, "written": 20}
    assert messages.ended
