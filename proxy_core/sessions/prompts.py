"""What a system prompt says of the agent that has it: a name, its beginning, and whether it asks for a side request.

Each distinct prompt is read once; the prompts of busy agents stay known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b

import msgspec
from msgspec import Struct

KEPT_BYTES = 16 * 1024 * 1024
_HEAD_BYTES = 120
_SIDE_WITHIN_BYTES = 600
_CACHE_CONTROL = b'"cache_control"'
_SIDE = re.compile(
    rb"(?i)title generator|\b(?:generate|write|create|extract|suggest)\b[^.\n]{0,60}\btitle\b|new conversation topic"
    rb"|summari[sz]e (?:this|the) (?:\w+ )?(?:conversation|chat|session)|conversation summari[sz]er"
    rb"|memory (?:extraction|extractor|consolidation|manager)|(?:extract|update)[^.\n]{0,40}\bmemor(?:y|ies)\b"
)


class Prompt(Struct, frozen=True, gc=False):
    """A system prompt."""

    agent: str = ""
    """Named after a hash of the prompt; empty without one."""
    head: int = 0
    """A number for its beginning: prompts with the date or a summary at their end keep it. 0 without a prompt."""
    side: bool = False
    """It asks for a title, a summary of the conversation or memory."""
    digest: bytes = b""
    """Keyed hash of the prompt as it came."""


NO_PROMPT = Prompt()


class Prompts:
    """Reads system prompts, and remembers those it has read."""

    def __init__(self, digest: Callable[[bytes | memoryview], bytes]) -> None:
        self._digest = digest
        self._known: dict[bytes, Prompt] = {}
        self._bytes = 0

    def of(self, system: bytes) -> Prompt:
        """What the prompt `system`, raw JSON, says."""
        if not system:
            return NO_PROMPT
        known = self._known.get(system)
        if known is None:
            known = read_prompt(system, self._digest(system))
            if self._bytes > KEPT_BYTES:
                self._known.clear()
                self._bytes = 0
            if len(system) <= KEPT_BYTES // 16:
                self._known[system] = known
                # An entry of the table costs something, too.
                self._bytes += len(system) + 300
        return known


def read_prompt(system: bytes, digest: bytes = b"") -> Prompt:
    """Read a system prompt given as raw JSON: a string, a list of parts, or a message."""
    steady = _without_marks(system) if _CACHE_CONTROL in system else system
    return Prompt(
        agent="agent-" + blake2b(steady, digest_size=4).hexdigest(),
        head=hash(steady[:_HEAD_BYTES]) or 1,
        side=_SIDE.search(steady, 0, _SIDE_WITHIN_BYTES) is not None,
        digest=digest,
    )


def _without_marks(system: bytes) -> bytes:
    """A system prompt in one form, whether its parts carry cache marks or not."""
    try:
        value = msgspec.json.decode(system)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return system
    parts = value
    if isinstance(value, dict):
        value.pop("cache_control", None)
        parts = value.get("content")
    if isinstance(parts, list):
        for part in parts:
            if isinstance(part, dict):
                part.pop("cache_control", None)
        if isinstance(value, dict) and len(parts) == 1 and isinstance(parts[0], dict) and set(parts[0]) == {"type", "text"}:
            value["content"] = parts[0]["text"]
    return msgspec.json.encode(value, order="sorted")
