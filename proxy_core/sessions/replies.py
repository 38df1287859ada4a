"""One form of what a model said, in which its answer and the client's copy of it in the next history are equal.

Text without surrounding white space, and tool calls by name and arguments: ids, reasoning and annotations are left out, for
clients drop or rewrite them. The form is a number that holds within this process. `Words` are a looser form of long answers: the
text alone, without reasoning that was written before it in tags. Never raises on hostile input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from proxy_core.wire.conversation import Block, TextBlock, ToolCallBlock

NOTHING_SAID = 0
MAX_ARGUMENTS_CHARS = 20_000
"""Longer arguments are compared as they were written."""
MAX_ENTRIES = 32
MIN_TELLING_CHARS = 200
"""Shorter answers come word for word in other sessions, too."""
_BY_CLIENT = re.compile(rb'"role"\s*:\s*"(?:user|system|developer|tool|function)"|"type"\s*:\s*"\w+_output"')
_CALL_ID = re.compile(rb'"(?:tool_call_id|tool_use_id|call_id)"\s*:\s*"([!-~]{1,128}?)"')
_THOUGHTS = re.compile(r"(?:\s*<(think|thinking)>.*?</\1>)+", re.DOTALL)
_ENDS_BYTES = 200
_OBJECT = ord("{")
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="sorted").encode


def said_in_answer(blocks: Sequence[Block], calls: Sequence[ToolCallBlock]) -> tuple[int, int]:
    """The form of an answer and its words, `calls` being those among its blocks.

    `NOTHING_SAID` in place of the form where it has neither text nor calls, of the words where they are few.
    """
    texts = [block.text for block in blocks if isinstance(block, TextBlock)]
    text = _text(texts)
    return _form(text, [(call.name, _arguments(call.arguments)) for call in calls] if calls else ()), _words(text)


def is_reply(entry: memoryview) -> bool:
    """Whether a model said this entry of a history, as its beginning and its end tell."""
    if entry[0] != _OBJECT:
        return False
    if len(entry) <= 2 * _ENDS_BYTES:
        return _BY_CLIENT.search(entry) is None
    return _BY_CLIENT.search(entry[:_ENDS_BYTES]) is None and _BY_CLIENT.search(entry[-_ENDS_BYTES:]) is None


def call_ids(entry: memoryview) -> list[str]:
    """The ids of the tool calls that an entry of a history answers or repeats, as its beginning and its end tell."""
    found = _CALL_ID.findall(entry[:_ENDS_BYTES]) + _CALL_ID.findall(entry[-_ENDS_BYTES:])
    return [one.decode("ascii") for one in found]


def said_in_history(entries: Sequence[memoryview]) -> list[int]:
    """The forms of the reply with which these entries begin: of the first entry, of the first two, and so on.

    One answer may come back as several entries, and several answers may follow one another. Empty where they begin with none.
    """
    return [_form(_text(texts), calls) for texts, calls in _gathered(entries)]


def words_in_history(entries: Sequence[memoryview]) -> list[int]:
    """The words of the reply with which these entries begin: of the first entry, of the first two, and so on."""
    return [_words(_text(texts)) for texts, _ in _gathered(entries)]


def given(said: Sequence[int], replies: Sequence[int]) -> int:
    """How many of the entries that `said` tells of were one of these replies; 0 where none was."""
    for count in range(len(said), 0, -1):
        if said[count - 1] != NOTHING_SAID and said[count - 1] in replies:
            return count
    return 0


def _gathered(entries: Sequence[memoryview]) -> Iterator[tuple[list[str], list[tuple[str, bytes]]]]:
    """What the reply with which these entries begin has said up to the first entry, up to the second, and so on."""
    texts: list[str] = []
    calls: list[tuple[str, bytes]] = []
    for entry in entries[:MAX_ENTRIES]:
        try:
            message = _decode(entry)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            break
        if not isinstance(message, dict) or not _said_by_model(message, texts, calls):
            break
        yield texts, calls


def _said_by_model(message: dict[str, Any], texts: list[str], calls: list[tuple[str, bytes]]) -> bool:
    """Gather what one entry of a history says; false where a model did not say it."""
    kind = message.get("type")
    if kind in ("function_call", "custom_tool_call"):
        arguments = message.get("arguments" if kind == "function_call" else "input")
        calls.append((str(message.get("name")), _arguments(arguments)))
        return True
    if kind == "reasoning":
        return True
    if message.get("role") not in ("assistant", "model"):
        return False
    content = message.get("content")
    if isinstance(content, str):
        texts.append(content)
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict):
                _part(part, texts, calls)
    listed = message.get("tool_calls")
    functions = [message.get("function_call")]
    if isinstance(listed, list):
        functions += [call.get("function") or call.get("custom") for call in listed if isinstance(call, dict)]
    calls += [
        (str(function.get("name")), _arguments(function.get("arguments", function.get("input"))))
        for function in functions
        if isinstance(function, dict)
    ]
    return True


def _part(part: dict[str, Any], texts: list[str], calls: list[tuple[str, bytes]]) -> None:
    kind = part.get("type")
    if kind == "tool_use":
        calls.append((str(part.get("name")), _arguments(part.get("input"))))
    elif kind in ("text", "output_text") and isinstance(part.get("text"), str):
        texts.append(part["text"])


def _arguments(value: object) -> bytes:
    """Arguments in one spelling, whether they came as JSON text or as a value."""
    if isinstance(value, str):
        if len(value) > MAX_ARGUMENTS_CHARS:
            return value.encode("utf-8", "replace")
        try:
            value = _decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return str(value).encode("utf-8", "replace")
    if value is None or value == {}:
        return b""
    try:
        return _encode(value)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError):
        return b"?"


def _text(texts: list[str]) -> str:
    return (texts[0] if len(texts) == 1 else "".join(texts)).strip()


def _words(text: str) -> int:
    if len(text) < MIN_TELLING_CHARS:
        return NOTHING_SAID
    if text.startswith("<think") and (thoughts := _THOUGHTS.match(text)):
        text = text[thoughts.end() :].strip()
    return (hash(text) or 1) if len(text) >= MIN_TELLING_CHARS else NOTHING_SAID


def _form(text: str, calls: Sequence[tuple[str, bytes]]) -> int:
    if not text and not calls:
        return NOTHING_SAID
    return hash((text, *calls)) or 1
