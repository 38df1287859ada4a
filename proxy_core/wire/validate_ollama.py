"""The rules of streams of Ollama's chat and generate."""

from __future__ import annotations

from typing import Any

import msgspec

from proxy_core.wire.tolerant_json import as_list, as_object, as_text, read
from proxy_core.wire.validator import Findings


class _Line(msgspec.Struct):
    model: Any = None
    message: Any = None
    response: Any = None
    done: Any = None
    error: Any = None


_line = msgspec.json.Decoder(_Line)


class OllamaRules(Findings):
    """Applied to one stream."""

    def __init__(self, strict: bool) -> None:
        super().__init__(strict)
        self._done = False
        self._failed = False

    def event(self, name: str, data: bytes) -> None:
        line, _ = read(data, _line.decode)
        if line is None:
            self.say("event_readable", "a line is no JSON object")
            return
        if self._done or self._failed:
            self.say("done_last", "a line comes after the last one")
        if line.error:
            self._failed = True
            return
        if self.strict and not isinstance(line.message, dict) and not isinstance(line.response, str):
            self.say("line_has_content", "a line has neither message nor response")
        message = as_object(line.message)
        for call in as_list(message.get("tool_calls")):
            function = as_object(as_object(call).get("function"))
            if not as_text(function.get("name")) or not isinstance(function.get("arguments"), dict):
                self.say("calls_whole", "a tool call has no name or no object of arguments")
        if line.done is True:
            self._done = True

    def end(self) -> None:
        if not self._done and not self._failed:
            self.say("done_last", 'the stream ends without "done":true')
