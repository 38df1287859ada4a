"""Compares luthien's translations with those of another gateway, kept as golden files, and tells where the two differ, and why.

    python -m evals.translation FILE [--json]

FILE is JSONL, plain or gzipped, of rows {kind, input_format, target, name, input, expected}; those between Messages and Chat
Completions are compared, requests, answers and streams. `same`: the same values field by field; `meaning`: other words for the
same; `differs`: something else. Where luthien differs on purpose the reason stands beside it. Exit code 1 where one is missing.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Answer, Block, Conversation, ToolCallBlock, ToolResultBlock
from proxy_core.wire.dialects import Operation
from proxy_core.wire.translate import StreamTranslator, translate_request, translate_response

CHAT, MESSAGES = Operation.CHAT, Operation.MESSAGES
WAYS: dict[tuple[str, str], tuple[str, Operation, Operation]] = {
    ("completions", "anthropic"): ("request", CHAT, MESSAGES),
    ("messages", "completions"): ("request", MESSAGES, CHAT),
    ("completions", "completions-messages"): ("answer", CHAT, MESSAGES),
    ("anthropic", "messages-completions"): ("answer", MESSAGES, CHAT),
    ("anthropic", "messages-completions-streaming"): ("stream", MESSAGES, CHAT),
}
"""Rows by input format and target: what is translated, from what, to what."""
ON_PURPOSE = {
    "max_tokens": "room for the answer beside the budget of thinking",
    "reasoning_effort": "'none' is a word that not every model takes; it is left out where the client says nothing of effort",
    "stream": "a client that wants no stream says so by leaving it out",
    "messages": "a message of one text is said as a text, not as a list of one",
    "usage": "prompt_tokens hold what was read from the cache and written, as OpenAI's do; the other API's fields are left out",
    "choices": "every field of OpenAI's own answers is there, and the signature of thinking is kept for the way back",
    "service_tier": "the tier is its own provider's word",
    "events": "cut into other events",
}
"""Fields in which luthien differs on purpose, and why."""

_MASKS = ("[id]", "[date]")
"""What stands in golden files for values that differ each time."""


@dataclass
class Row:
    """One golden translation."""

    name: str
    what: str
    source: Operation
    target: Operation
    body: bytes
    expected: str


@dataclass
class Compared:
    """What came of one row."""

    name: str
    what: str
    source: str
    target: str
    result: Literal["same", "meaning", "differs"] = "same"
    fields: list[str] = field(default_factory=list)
    """Fields whose words differ."""
    problem: str = ""
    """What means something else; empty where nothing does."""


def rows_of(path: Path) -> Iterator[Row]:
    """The rows that are between two dialects luthien translates."""
    data = path.read_bytes()
    for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines():
        row = json.loads(line)
        way = WAYS.get((row["input_format"], row["target"]))
        if way is not None:
            name = f"{row['input_format']}-{row['target']}-{row['name']}"
            yield Row(name, *way, row["input"].encode(), row["expected"])


def compare(row: Row) -> Compared:
    """Translate one row, and hold it against what the other gateway made of it."""
    found = Compared(row.name, row.what, row.source.value, row.target.value)
    ours, theirs, mean = _KINDS[row.what](row)
    masked = [name for name, value in theirs.items() if value in _MASKS]
    found.fields = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name) and name not in masked)
    found.problem = _first_difference(*mean)
    found.result = "differs" if found.problem else "meaning" if found.fields else "same"
    return found


Sides = tuple[dict[str, Any], dict[str, Any], tuple[dict[str, Any], dict[str, Any]]]


def _request(row: Row) -> Sides:
    got = translate_request(row.source, row.target, row.body).body
    wanted = json.loads(row.expected)["request"]
    codec = codec_for(row.target)
    assert codec is not None
    mean = tuple(_said(codec.read_request(body)) for body in (got, json.dumps(wanted).encode()))
    return json.loads(got), wanted, (mean[0], mean[1])


def _answer(row: Row) -> Sides:
    got = translate_response(row.source, row.target, 200, row.body, transaction_id="t")
    wanted = json.loads(row.expected)["response"]
    codec = codec_for(row.target)
    assert codec is not None
    mean = tuple(_answered(codec.read_response(body)) for body in (got, json.dumps(wanted).encode()))
    return json.loads(got), wanted, (mean[0], mean[1])


def _stream(row: Row) -> Sides:
    translator = StreamTranslator(row.source, row.target, transaction_id="t")
    got = translator.feed(row.body) + translator.finish()
    wanted = row.expected[: row.expected.index("[DONE]") + 8].encode()
    codec = codec_for(row.target)
    assert codec is not None
    mean: list[dict[str, Any]] = []
    for body in (got, wanted):
        decoder = codec.stream_decoder()
        decoder.feed(body)
        mean.append(_answered(decoder.finish()))
    return {"events": got.decode().strip()}, {"events": wanted.decode().strip()}, (mean[0], mean[1])


_KINDS = {"request": _request, "answer": _answer, "stream": _stream}


def _said(conversation: Conversation) -> dict[str, Any]:
    """Who said what: where one gives each result a message of its own, the other puts those of one turn together."""
    merged: list[Any] = []
    for message in conversation.messages:
        blocks = [_block(block) for block in message.blocks]
        if merged and merged[-1][0] == message.role:
            merged[-1][1] += blocks
        else:
            merged.append([message.role, blocks])
    tools = [(tool.name, json.loads(tool.parameters)) for tool in conversation.tools]
    return {"model": conversation.model, "conversation": merged, "tools": tools}


def _block(block: Block) -> Any:
    if isinstance(block, ToolCallBlock):
        return block.call_id, block.name, json.loads(block.arguments or "{}")
    if isinstance(block, ToolResultBlock):
        return block.call_id, block.content, block.is_error
    return type(block).__name__, getattr(block, "text", "")


def _answered(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "text": answer.text,
        "stop reason": answer.stop_reason,
        "model": answer.model,
        "complete": answer.complete,
        "calls": [(call.call_id, call.name, json.loads(call.arguments or "{}")) for call in answer.tool_calls],
        "usage": usage and (usage.output_tokens, usage.cached_input_tokens),
    }


def _first_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    for name, value in ours.items():
        if value != theirs[name]:
            return f"{name}: {str(value)[:200]} is not {str(theirs[name])[:200]}"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m evals.translation", description="Compare with another gateway's translations."
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", action="store_true", help="print every row as JSON")
    given = parser.parse_args()
    compared = [compare(row) for row in rows_of(given.file)]
    if given.json:
        print(json.dumps([asdict(one) for one in compared], indent=1))
        return 0
    results = Counter((one.what, one.source, one.target, one.result) for one in compared)
    for (what, source, target, result), count in sorted(results.items()):
        print(f"{what:8} {source} → {target}: {count} {result}")
    agreed = sum(one.result != "differs" for one in compared)
    print(f"{agreed} of {len(compared)} mean the same")
    fields = Counter(name for one in compared for name in one.fields)
    for name, count in fields.most_common():
        print(f"  {name} in {count}: {ON_PURPOSE.get(name, 'NO REASON KNOWN')}")
    for one in compared:
        if one.problem:
            print(f"  {one.name}: {one.problem}")
    return 1 if agreed < len(compared) or any(name not in ON_PURPOSE for name in fields) else 0


if __name__ == "__main__":
    sys.exit(main())
