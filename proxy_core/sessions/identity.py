"""Who is talking, as far as a request says so itself: session and agent names in headers and in the body.

Names from outside are cut to 200 printable characters before anyone uses them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

MAX_NAME_CHARS = 200
SESSION_HEADERS = (
    b"x-luthien-session-id",
    b"x-cylestio-conversation-id",
    b"x-cylestio-session-id",
    b"x-session-id",
    b"session-id",
    b"session_id",
    b"x-claude-code-session-id",
)
"""In the order in which they decide."""
AGENT_HEADERS = (b"x-luthien-agent-id", b"x-cylestio-agent-id", b"x-cylestio-prompt-id")
OUR_HEADER_PREFIXES = (b"x-luthien-", b"x-cylestio-")
"""Headers that are meant for luthien and are never sent on."""

_NAMING_HEADERS = frozenset((*SESSION_HEADERS, *AGENT_HEADERS))

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_CLAUDE_SESSION = re.compile(r"_session_([0-9A-Za-z-]{8,64})$")
_UNIQUE_ID = re.compile(r"(?i)^(?:[\w-]{0,24}[_:-])?(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{24,64})$")


def names_nothing(headers: Mapping[bytes, bytes]) -> bool:
    """Whether no header can name a session or an agent; true of most requests."""
    return _NAMING_HEADERS.isdisjoint(headers)


def name_of(value: bytes | str) -> str:
    """A name from outside, fit to be a key: printable ASCII, at most 200 characters."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return _UNPRINTABLE.sub("?", text[:MAX_NAME_CHARS]).strip()


def session_in_headers(headers: Mapping[bytes, bytes]) -> str:
    """The session that the headers name; empty where they name none."""
    for header in SESSION_HEADERS:
        if header in headers and (name := name_of(headers[header])):
            return name
    return ""


def agent_in_headers(headers: Mapping[bytes, bytes]) -> str:
    for header in AGENT_HEADERS:
        if header in headers and (name := name_of(headers[header])):
            return name
    return ""


def session_in_marks(marks: Mapping[str, Any]) -> str:
    """The session that fields of the body name, `previous_response_id` aside; empty where none does."""
    conversation = marks.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    if isinstance(conversation, str) and conversation:
        return name_of(conversation)
    client = marks.get("client_metadata")
    if isinstance(client, dict) and isinstance(client.get("session_id"), str):
        return name_of(client["session_id"])
    metadata = marks.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
    if isinstance(user_id, str) and (named := _session_in_user_id(user_id)):
        return named
    cache_key = marks.get("prompt_cache_key")
    # Many clients use one cache key for all their traffic: only what looks unique can be a session.
    if isinstance(cache_key, str) and _UNIQUE_ID.match(cache_key):
        return name_of(cache_key)
    return ""


def _session_in_user_id(user_id: str) -> str:
    found = _CLAUDE_SESSION.search(user_id[-120:])
    if found:
        return found.group(1)
    if user_id.startswith("{") and len(user_id) <= 4_000:
        try:
            parts = msgspec.json.decode(user_id)
        except (msgspec.MsgspecError, RecursionError):
            return ""
        if isinstance(parts, dict) and isinstance(parts.get("session_id"), str):
            return name_of(parts["session_id"])
    return ""


_TAG_HEADERS = (b"x-luthien-tags", b"x-cylestio-tags")
MAX_TAGS = 50


def tags_of(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """`x-luthien-tags: user:alice, debug` as names and values."""
    tags: dict[str, str] = {}
    for name, value in headers:
        if name in _TAG_HEADERS:
            for part in value[:4_000].decode("latin-1").split(",")[:MAX_TAGS]:
                word, _, rest = part.strip().partition(":")
                if word:
                    tags[word[:64]] = rest.strip()[:512]
    return tags
