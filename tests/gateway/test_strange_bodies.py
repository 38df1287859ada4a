"""Bodies that no SDK sends and no provider answers: they pass unchanged, and what cannot be read is unknown, never zero."""

from __future__ import annotations

import gzip
import json
import resource

import pytest

from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, EVERY, MESSAGES
from tests.gateway.test_transparency import assert_same
from tests.gateway_fixtures import RunningGateway

STRANGE = {
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "long number": b'{"model":"m","messages":[],"n":' + b"9" * 1_000_000 + b"}",
    "not a number": b'{"model":"m","messages":[{"role":"user","content":NaN}],"t":Infinity}',
    "duplicate keys": b'{"model":"a","model":"b","messages":[],"messages":[{"role":"user","content":"x"}]}',
    "not utf-8": b'{"model":"m\xff\xfe","messages":[{"role":"user","content":"\xc3("}]}',
    "byte order mark": b"\xef\xbb\xbf" + CHAT.bytes(),
    "utf-16": CHAT.bytes().decode().encode("utf-16"),
    "lone surrogate": b'{"model":"m","messages":[{"role":"user","content":"\\ud800 \\udc00"}]}',
    "wrong types": b'{"model":7,"messages":{"role":[]},"stream":"yes","tools":3}',
    "no object": b'"hello"',
    "nothing": b"",
    "spaces": b"   ",
    "many messages": json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}] * 30_000}).encode(),
    "many tools": json.dumps({"model": "m", "messages": [], "tools": [{"name": "t"}] * 10_000}).encode(),
    "terminal codes": json.dumps({"model": "\x1b[2J", "messages": [{"role": "user", "content": "\x1b]52;c;x\x07"}]}).encode(),
}


@pytest.mark.parametrize("kind", STRANGE)
async def test_strange_json_passes_and_never_breaks_anything(gateway: RunningGateway, upstream: FaultUpstream, kind: str) -> None:
    for count, asking in enumerate(EVERY, start=1):
        response = await gateway.ask("POST", asking.path, STRANGE[kind])
        assert len(upstream.exchanges) == count
        assert upstream.last.body == STRANGE[kind]
        assert_same(response, upstream.last)
        assert (await gateway.row()).outcome in ("ok", "error")


STRANGE_ANSWERS = {
    "negative usage": '{"choices":[],"usage":{"prompt_tokens":-5,"completion_tokens":-1}}',
    "huge usage": '{"choices":[],"usage":{"prompt_tokens":9223372036854775808,"completion_tokens":1e300}}',
    "text as usage": '{"choices":[],"usage":{"prompt_tokens":"many","completion_tokens":null}}',
    "no usage": '{"choices":[]}',
    "deep": "[" * 50_000,
    "arguments": '{"choices":[{"message":{"tool_calls":[{"function":{"name":"","arguments":"{{{"}},{"function":7}]}}]}',
    "not json": "<html>",
    "control": '{"error":{"message":"\\u001b]52;c;x\\u0007"}}',
}


@pytest.mark.parametrize("kind", STRANGE_ANSWERS)
async def test_strange_answers_pass_and_their_usage_is_unknown_or_marked_as_estimated(
    gateway: RunningGateway, upstream: FaultUpstream, kind: str
) -> None:
    for asking in EVERY:
        upstream.faults.append(Fault(body=STRANGE_ANSWERS[kind]))
        response = await gateway.ask("POST", asking.path, asking.bytes())
        assert_same(response, upstream.last)
        row = await gateway.row()
        # Only a call of a tool that a chat client would read has a length to estimate from.
        assert row.estimated is (kind == "arguments" and asking is CHAT)
        assert row.estimated is (row.output_tokens is not None)
        if not row.estimated:
            assert (row.input_tokens, row.output_tokens, row.cost_usd) == (None, None, None)


async def test_event_of_many_megabytes(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    for asking in (CHAT, MESSAGES):
        upstream.faults.append(Fault(insert={"2": 'data: {"huge":"' + "x" * 8_000_000 + '"}\n\n'}))
        response = await gateway.ask("POST", asking.path, asking.bytes(stream=True))
        assert_same(response, upstream.last)
        assert (await gateway.row()).outcome == "ok"


async def test_compressed_bomb_is_passed_on_unopened(gateway: RunningGateway, upstream: FaultUpstream) -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    member = gzip.compress(bytes(8_000_000))
    upstream.faults.append(Fault(raw_body_hex=(member * 100).hex(), headers=[("content-encoding", "gzip")]))
    response = await gateway.ask("POST", CHAT.path, CHAT.bytes())
    assert_same(response, upstream.last)
    row = await gateway.row()
    assert (row.outcome in ("ok", "truncated"), row.output_tokens) == (True, None)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    assert grown_kb < 200_000, f"{grown_kb} kB more for an answer that unfolds to 800 MB"
