"""The upstream of the benchmarks in Python, for machines without a C compiler: the same answers, headers and stamps, slower.

`python -m benchmarks.mock_upstream [PORT]` prints "listening PORT". What it answers is described in mock_upstream.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time

from benchmarks.plain_client import PATHS

CHUNK: dict[str, object] = {
    "id": "chatcmpl-bench",
    "object": "chat.completion.chunk",
    "created": 1735689600,
    "model": "gpt-4o-mini",
}
TEXT = "A day's sail west of the harbour lies an island that no chart of the company shows."
ANSWERS: dict[str, dict[str, object]] = {
    "openai": {
        **CHUNK,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 21, "completion_tokens": 37, "total_tokens": 58},
    },
    "anthropic": {
        "id": "msg_bench",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 21, "output_tokens": 37},
    },
}


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def openai_event(step: int, tokens: int) -> bytes | None:
    """The event at `step` of an OpenAI stream; None past the last."""
    if step < tokens:
        choice = {"index": 0, "delta": {"content": f" word{step}"}, "finish_reason": None}
        return b"data: " + compact({**CHUNK, "choices": [choice], "sent_us": time.monotonic_ns() // 1000}) + b"\n\n"
    if step == tokens:
        usage = {"prompt_tokens": 21, "completion_tokens": tokens, "total_tokens": tokens + 21}
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        return b"data: " + compact({**CHUNK, "choices": [choice], "usage": usage}) + b"\n\n"
    return b"data: [DONE]\n\n" if step == tokens + 1 else None


def anthropic_event(step: int, tokens: int) -> bytes | None:
    """The event at `step` of an Anthropic stream; None past the last."""
    closing: list[dict[str, object]] = [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": tokens},
        },
        {"type": "message_stop"},
    ]
    event: dict[str, object]
    if step == 0:
        message = {**ANSWERS["anthropic"], "content": [], "stop_reason": None, "usage": {"input_tokens": 21, "output_tokens": 1}}
        event = {"type": "message_start", "message": message}
    elif step == 1:
        event = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    elif step < tokens + 2:
        delta = {"type": "text_delta", "text": f" word{step - 2}"}
        event = {"type": "content_block_delta", "index": 0, "delta": delta, "sent_us": time.monotonic_ns() // 1000}
    elif step < tokens + 5:
        event = closing[step - tokens - 2]
    else:
        return None
    return f"event: {event['type']}\n".encode() + b"data: " + compact(event) + b"\n\n"


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


async def send_stream(writer: asyncio.StreamWriter, shape: str, headers: dict[str, str]) -> None:
    tokens = int(headers.get("x-mock-tokens", "32"))
    gap_s = int(headers.get("x-mock-gap-us", "10000")) / 1e6
    make = anthropic_event if shape == "anthropic" else openai_event
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")
    due = time.monotonic() + int(headers.get("x-mock-first-us", "0")) / 1e6
    step = 0
    while True:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        event = make(step, tokens)
        if event is None:
            break
        writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        await writer.drain()
        due += gap_s
        step += 1
    writer.write(b"0\r\n\r\n")


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await read_body(reader, headers)
            shape = "anthropic" if PATHS["anthropic"] in first else "openai"
            if b'"stream":true' in body or b'"stream": true' in body:
                await send_stream(writer, shape, headers)
            else:
                answer = compact(ANSWERS[shape])
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer
                )
            await writer.drain()
    writer.close()


async def serve(port: int) -> None:
    server = await asyncio.start_server(converse, "127.0.0.1", port, backlog=1024)
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
