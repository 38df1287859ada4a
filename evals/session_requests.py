"""Requests of known sessions, in the order in which a gateway would see them, read from the data folder.

`sessions` and `session_variants` are expanded into chat requests, eight sessions at a time, without any name; `sessions_wire`
and `agent_cli_traffic` are sent as they were recorded, or without the headers and fields that name a session.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.fidelity import sendable
from evals.loopback_http import Headers, Planned

OPEN_AT_ONCE = 8
_NAMING_HEADER = re.compile(r"(?i)session|thread|conversation|turn|window|client-request-id|x-(?:luthien|cylestio)-")
_NAMING_FIELDS = (
    "previous_response_id",
    "conversation",
    "client_metadata",
    "metadata",
    "prompt_cache_key",
    "safety_identifier",
    "user",
)
_WIRE_PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "anthropic-messages": "/v1/messages",
}
_ONE_PIECE = 24


@dataclass
class Asked:
    """One request, the session it belongs to, and the answer to give it."""

    session: str
    kind: str
    """What it does: next, regenerate, edit, or what a recording calls it."""
    source: str
    """Where its session comes from."""
    path: str
    headers: Headers
    body: bytes
    answer: Planned
    named: bool = False
    """Whether a header or a field tells its session."""
    sub_agent: bool = False
    """Whether it is a sub-agent's: then its session may be another that names this one as its parent."""


def expanded(folder: Path, limit: int | None, seed: int) -> list[Asked]:
    """The requests of `sessions` with their variants, interleaved; every third is answered as a stream."""
    variants: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for one in _rows(folder, "session_variants"):
        variants.setdefault(one["session_id"], {}).setdefault(one["after_turn"], []).append(one)
    sessions = list(_rows(folder, "sessions"))
    dice = random.Random(seed)
    if limit is not None:
        sessions = dice.sample(sessions, min(limit, len(sessions)))
    todo = [(session, _steps(session, variants.get(session["session_id"], {}))) for session in sessions]
    dice.shuffle(todo)
    live: list[tuple[dict[str, Any], Iterator[tuple[str, list[Any], dict[str, Any]]]]] = []
    found: list[Asked] = []
    while todo or live:
        while todo and len(live) < OPEN_AT_ONCE:
            live.append(todo.pop())
        at = dice.randrange(len(live))
        session, steps = live[at]
        step = next(steps, None)
        if step is None:
            live.pop(at)
            continue
        kind, messages, reply = step
        stream = len(found) % 3 == 0
        body = {"model": "gpt-4o", "messages": messages, "stream": stream}
        name = session["session_id"]
        headers = [("content-type", "application/json"), ("authorization", "Bearer sk-loopback")]
        answer = _streamed(reply) if stream else _whole(reply)
        found.append(Asked(name, kind, name.split("-")[0], _WIRE_PATHS["openai-chat"], headers, _json(body), answer))
    return found


def _steps(session: dict[str, Any], variants: dict[int, list[dict[str, Any]]]) -> Iterator[tuple[str, list[Any], dict[str, Any]]]:
    messages = session["messages"]
    for turn, point in enumerate(session["request_points"]):
        yield "next" if turn else "opening", messages[:point], messages[point]
        for variant in variants.get(turn, []):
            history = messages[: variant["messages_prefix"]]
            if variant["replace_last"]:
                history = [*history[:-1], variant["replace_last"]]
            kind = "edit" if variant["replace_last"] else "regenerate" if turn else "regenerate the first answer"
            yield kind, history, messages[point]


def recorded_wire(folder: Path, limit: int | None, seed: int, *, stripped: bool) -> list[Asked]:
    """The requests of `sessions_wire`, one recording after another; they were often made several times over.

    A request belongs to the latest request of its recording that it goes on from: it names its response, or starts with its
    messages (whatever the system prompt) and has more. An opening made once more is a session of its own, unless the same
    program made the one before it and that failed; what follows goes on from the latest opening, not from the run before.
    """
    recordings: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(folder, "sessions_wire"):
        recordings.setdefault(row["session_id"], []).append(row)
    names = list(recordings)
    if limit is not None:
        names = random.Random(seed).sample(names, min(limit, len(names)))
    found: list[Asked] = []
    for name in names:
        earlier: list[_Earlier] = []
        for row in recordings[name]:
            body = row["request_body"]
            messages = _conversation(body)
            program = {key.lower(): value for key, value in row["request_headers"].items()}.get("user-agent", "")
            owner = _goes_on_from(earlier, messages, body.get("previous_response_id"), program)
            session = owner.session if owner is not None else f"{name}#{row['turn']}"
            opening = owner is None or (owner.opening and owner.messages == messages)
            said = row["response_body"] or ""
            failed = row["status"] >= 400 or not said or said.lstrip("{ \n").startswith('"error"')
            earlier.append(_Earlier(session, messages, said, failed, opening, program))
            headers = sendable(list(row["request_headers"].items()))
            named = row["link"] == "previous_response_id"
            if stripped:
                headers, body, named = *without_names(headers, body), False
            content = "text/event-stream" if row["stream"] else "application/json"
            answer = Planned(row["status"], [("content-type", content)], said.encode())
            path = _WIRE_PATHS[row["api"]]
            found.append(Asked(session, row["link"], row["api"], path, headers, _json(body), answer, named))
    return found


@dataclass
class _Earlier:
    session: str
    messages: list[Any]
    answer: str
    failed: bool
    opening: bool
    program: str


def _goes_on_from(earlier: list[_Earlier], messages: list[Any], response_id: object, program: str) -> _Earlier | None:
    """The request that another one goes on from: since the latest opening the one that shares most, the latest of several."""
    if isinstance(response_id, str):
        return next((one for one in earlier if response_id in one.answer), None)
    best = None
    for one in earlier:
        shared = len(one.messages)
        if one.messages != messages[:shared]:
            continue
        if shared == len(messages) and one.opening:
            best = one if one.failed and one.program == program else None
            continue
        goes_on = shared == len(messages) or _is_reply(messages[shared])
        if goes_on and (best is None or one.opening or shared >= len(best.messages)):
            best = one
    return best


def _conversation(body: dict[str, Any]) -> list[Any]:
    """The messages of a request without its leading system message and without cache marks."""
    listed = body.get("messages") or body.get("input") or []
    messages = [_plain(one) for one in listed] if isinstance(listed, list) else [listed]
    leading = len(messages) > 1 and isinstance(messages[0], dict) and messages[0].get("role") in ("system", "developer")
    return messages[1:] if leading else messages


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, dict):
        return value
    plain = {name: _plain(one) for name, one in value.items() if name != "cache_control"}
    content = plain.get("content")
    if isinstance(content, list) and len(content) == 1 and content[0].keys() == {"type", "text"}:
        plain["content"] = content[0]["text"]
    return plain


def recorded_agents(folder: Path, limit: int | None, seed: int, *, stripped: bool) -> list[Asked]:
    """The requests of `agent_cli_traffic` in the order in which they came."""
    rows = sorted(_rows(folder, "agent_cli_traffic"), key=lambda row: float(row["t"]))
    if limit is not None:
        names = sorted({row["session_id"] for row in rows})
        kept = set(random.Random(seed).sample(names, min(limit, len(names))))
        rows = [row for row in rows if row["session_id"] in kept]
    found: list[Asked] = []
    for row in rows:
        headers = sendable(list(row["request_headers"].items()))
        raw = row["request_body"].encode()
        named = row["native_session_id"] is not None
        if stripped:
            headers, body = without_names(headers, json.loads(raw))
            raw, named = _json(body), False
        answer = Planned(row["status"], sendable(list(row["response_headers"].items())), row["response_body"].encode())
        kind = row["side_request"] or "turn"
        client = row["client"].partition(" ")[0]
        found.append(
            Asked(row["session_id"], kind, client, row["path"], headers, raw, answer, named, sub_agent=kind == "subagent")
        )
    return found


def without_names(headers: Headers, body: dict[str, Any]) -> tuple[Headers, dict[str, Any]]:
    """A request without what names its session."""
    kept = [(name, value) for name, value in headers if not _NAMING_HEADER.search(name)]
    return kept, {name: value for name, value in body.items() if name not in _NAMING_FIELDS}


def _is_reply(message: Any) -> bool:
    if not isinstance(message, dict) or str(message.get("type")).endswith("_output"):
        return False
    return bool(message.get("role", "assistant") == "assistant")


def _whole(reply: dict[str, Any]) -> Planned:
    choice = {"index": 0, "message": reply, "finish_reason": "tool_calls" if reply.get("tool_calls") else "stop"}
    body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [choice]}
    return Planned(200, [("content-type", "application/json")], _json(body))


def _streamed(reply: dict[str, Any]) -> Planned:
    text = reply.get("content")
    text = text if isinstance(text, str) else ""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": text[at : at + _ONE_PIECE]} for at in range(0, len(text), _ONE_PIECE)]
    deltas += [{"tool_calls": [{"index": at, **call}]} for at, call in enumerate(reply.get("tool_calls") or [])]
    chunks: list[dict[str, Any]] = [{"delta": delta, "finish_reason": None} for delta in deltas]
    chunks.append({"delta": {}, "finish_reason": "tool_calls" if reply.get("tool_calls") else "stop"})
    fixed: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    lines = [b"data: " + _json(fixed | {"choices": [{"index": 0, **chunk}]}) + b"\n\n" for chunk in chunks]
    return Planned(200, [("content-type", "text/event-stream")], b"".join([*lines, b"data: [DONE]\n\n"]))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
