"""The rules of streams of Chat Completions and legacy completions."""

from __future__ import annotations

from typing import Any

import msgspec

from proxy_core.wire.tolerant_json import as_index, as_list, as_object, as_text, read
from proxy_core.wire.validator import Findings


class _Chunk(msgspec.Struct):
    choices: Any = None
    usage: Any = None
    error: Any = None


_chunk = msgspec.json.Decoder(_Chunk)


class ChatRules(Findings):
    """Applied to one stream."""

    def __init__(self, strict: bool) -> None:
        super().__init__(strict)
        self._done = False
        self._failed = False
        self._calls: dict[tuple[int, int], bool] = {}
        """Whether each call has its name, by choice and index."""
        self._counts: dict[int, int] = {}
        self._roles: set[int] = set()
        self._choices: set[int] = set()
        self._finished: set[int] = set()

    def event(self, name: str, data: bytes) -> None:
        if self._done:
            self.say("done_last", "an event comes after [DONE]")
            return
        if data[:6] == b"[DONE]":
            self._done = True
            return
        chunk, _ = read(data, _chunk.decode)
        if chunk is None:
            self.say("event_readable", "an event's data is no JSON object")
            return
        if self._failed:
            self.say("done_last", "a chunk comes after an error")
        if chunk.error or name == "error":
            self._failed = True
        for choice in as_list(chunk.choices):
            self._choice(as_object(choice))

    def end(self) -> None:
        if self._failed:
            return
        if not self._done:
            self.say("done_last", "the stream ends without [DONE]")
        elif self.strict:
            for choice in sorted(self._choices - self._finished):
                self.say("finish_present", f"choice {choice} has no finish_reason")

    def _choice(self, choice: dict[str, Any]) -> None:
        index = as_index(choice.get("index"))
        self._choices.add(index)
        delta = as_object(choice.get("delta"))
        calls = as_list(delta.get("tool_calls"))
        legacy = delta.get("function_call")
        said = delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning") or choice.get("text")
        if index in self._finished and (said or calls or legacy):
            self.say("delta_before_finish", f"choice {index} goes on after its finish_reason")
        if self.strict and "role" in delta:
            if index in self._roles:
                self.say("role_once", f"choice {index} says its role twice")
            self._roles.add(index)
        for call in calls:
            self._call(index, as_object(call))
        if legacy:
            self._counts.setdefault(index, 1)
        reason = choice.get("finish_reason")
        if reason:
            if index in self._finished:
                self.say("finish_once", f"choice {index} finishes twice")
            self._finished.add(index)
            if self.strict and reason in ("tool_calls", "function_call") and not self._counts.get(index):
                self.say("finish_reason_true", f"choice {index} stops for a tool call and has none")
            if self.strict and reason == "stop" and self._counts.get(index):
                self.say("finish_reason_true", f"choice {index} has a tool call and does not stop for it")

    def _call(self, choice: int, call: dict[str, Any]) -> None:
        index = call.get("index")
        if type(index) is not int:
            if self.strict:
                self.say("call_index_present", "a piece of a tool call has no index")
            return
        function = as_object(call.get("function")) or as_object(call.get("custom"))
        named = bool(as_text(call.get("id")) or as_text(function.get("name")))
        if (choice, index) not in self._calls:
            expected = self._counts.get(choice, 0)
            self._counts[choice] = expected + 1
            self._calls[choice, index] = named
            if not named:
                self.say("delta_after_start", f"tool call {index} begins without id and name")
            elif self.strict and not (as_text(call.get("id")) and as_text(function.get("name"))):
                self.say("call_named", f"tool call {index} begins without its id or its name")
            if self.strict and index != expected:
                self.say("call_index_contiguous", f"tool call {index} comes in place of {expected}")
        elif named and self.strict:
            self.say("call_named_once", f"tool call {index} says its id or name again")
