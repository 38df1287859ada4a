"""Who is talking, as far as a request says so itself: sessions, agents, users and tags in headers and in the body.

Nothing here is proof of anything: it is what the client says. Names are cut to 200 characters, tags to the limits below,
and what cannot be printed becomes `?`, before anyone uses them. Nothing a client sends makes it fail.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

MAX_NAME_CHARS = 200
MAX_TAGS = 50
"""Tags of one request; more are left out, in the order in which they came."""
MAX_TAG_NAME_CHARS = 64
"""A tag with a longer name is left out."""
MAX_TAG_VALUE_CHARS = 512
"""A longer value is cut."""
MAX_USER_ID_CHARS = 8_192
"""A longer `metadata.user_id` is not read."""
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
PARENT_HEADERS = (b"x-luthien-parent-session-id", b"x-cylestio-parent-session-id", b"x-parent-session-id")
"""The session that started this one; in the order in which they decide."""
AGENT_HEADERS = (b"x-luthien-agent-id", b"x-cylestio-agent-id", b"x-cylestio-prompt-id")
USER_HEADERS = (b"x-luthien-user-id", b"x-cylestio-user-id")
TAG_HEADERS = (b"x-luthien-tags", b"x-cylestio-tags")
SESSION_TAG_HEADER = b"x-cylestio-session-id"
"""Also gives the tag `session`, unless a tag of that name says otherwise."""
OUR_HEADER_PREFIXES = (b"x-luthien-", b"x-cylestio-")
"""Headers that are meant for luthien and are never sent on."""

_NAMING_HEADERS = frozenset((*SESSION_HEADERS, *PARENT_HEADERS, *AGENT_HEADERS))
_PERSONAL_HEADERS = frozenset((*USER_HEADERS, *TAG_HEADERS, SESSION_TAG_HEADER))
_MAX_ENTRIES = 1_000
"""Entries of one header that are looked at, whether they are tags or not."""

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_CLAUDE_SESSION = re.compile(r"_session_([0-9A-Za-z-]{8,64})$")
_CLAUDE_USER = re.compile(r"^(user_[0-9A-Za-z-]+)_account_([0-9A-Za-z-]*)_session_[0-9A-Za-z-]{8,64}$")
_UNIQUE_ID = re.compile(r"(?i)^(?:[\w-]{0,24}[_:-])?(?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{24,64})$")


class Person(Struct, frozen=True):
    """Whom a request is made for, and what the client calls it."""

    user: str = ""
    tags: dict[str, str] = {}


_NOBODY = Person()


def person_of(headers: Mapping[bytes, bytes], raw: Iterable[tuple[bytes, bytes]], marks: Mapping[str, Any]) -> Person:
    """User and tags of a request with these headers (lower case; `raw` with repeated ones) and these marks in its body.

    The user is what a header names, else a mark in the body, else the tag `user`, else the subject of a token (JWT).
    """
    token = headers.get(b"authorization", b"")[:10].lower() == b"bearer eyj"
    if not token and not marks and _PERSONAL_HEADERS.isdisjoint(headers):
        return _NOBODY
    tags = {} if _PERSONAL_HEADERS.isdisjoint(headers) else tags_of(raw)
    user = next((name for one in USER_HEADERS if one in headers and (name := label_of(headers[one]))), "")
    user = user or (user_in_marks(marks) if marks else "") or label_of(tags.get("user", ""))
    if not user and token:
        user = _subject(headers[b"authorization"][7:])
    return Person(user, tags) if user or tags else _NOBODY


def names_nothing(headers: Mapping[bytes, bytes]) -> bool:
    """Whether no header can name a session or an agent; true of most requests."""
    return _NAMING_HEADERS.isdisjoint(headers)


def name_of(value: bytes | str) -> str:
    """A name from outside, fit to be a key and a header: printable ASCII, at most 200 characters."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return _UNPRINTABLE.sub("?", text[:MAX_NAME_CHARS]).strip()


def label_of(value: bytes | str, limit: int = MAX_NAME_CHARS) -> str:
    """A text from outside of any script, fit for one line: printable, at most `limit` characters, trimmed."""
    text = _text(value) if isinstance(value, bytes) else value
    text = text.strip()[:limit]
    if not text.isprintable():
        text = "".join([one if one.isprintable() else "?" for one in text])
    return text.strip()


def session_in_headers(headers: Mapping[bytes, bytes]) -> str:
    """The session that the headers name; empty where they name none."""
    for header in SESSION_HEADERS:
        if header in headers and (name := name_of(headers[header])):
            return name
    return ""


def parent_in_headers(headers: Mapping[bytes, bytes], session_id: str) -> str:
    """The session that the headers name as this one's parent; empty where they name none, or the session itself."""
    for header in PARENT_HEADERS:
        if header in headers and (name := name_of(headers[header])) and name != session_id:
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
    user_id = _user_id(marks)
    if user_id and (named := _session_in_user_id(user_id)):
        return named
    cache_key = marks.get("prompt_cache_key")
    # Many clients use one cache key for all their traffic: only what looks unique can be a session.
    if isinstance(cache_key, str) and _UNIQUE_ID.match(cache_key):
        return name_of(cache_key)
    return ""


def user_in_marks(marks: Mapping[str, Any]) -> str:
    """The user that fields of the body name: `metadata.user_id` without its session, `safety_identifier`, `user`."""
    if user_id := _user_id(marks):
        found = _CLAUDE_USER.match(user_id)
        if found is not None:
            return label_of(found[2] or found[1])
        parts = _object(user_id)
        if parts is None:
            return label_of(_CLAUDE_SESSION.sub("", user_id))
        named = (parts.get(key) for key in ("user_id", "account_uuid", "device_id"))
        if user := next((label_of(one) for one in named if isinstance(one, str) and one), ""):
            return user
    for mark in ("safety_identifier", "user"):
        value = marks.get(mark)
        if isinstance(value, str) and (user := label_of(value)):
            return user
    return ""


def tags_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """`x-luthien-tags: user:alice, debug` as names and values. A bare name is `true`; the last of one name counts."""
    tags: dict[str, str] = {}
    session = ""
    for name, value in headers:
        if name == SESSION_TAG_HEADER:
            session = label_of(value, MAX_TAG_VALUE_CHARS)
        elif name in TAG_HEADERS:
            for part in _text(value).split(",", _MAX_ENTRIES)[:_MAX_ENTRIES]:
                word, colon, rest = part.partition(":")
                word = label_of(word, MAX_TAG_NAME_CHARS + 1)
                if word and len(word) <= MAX_TAG_NAME_CHARS and (word in tags or len(tags) < MAX_TAGS):
                    tags[word] = label_of(rest, MAX_TAG_VALUE_CHARS) if colon else "true"
    if session and len(tags) < MAX_TAGS:
        tags.setdefault("session", session)
    return tags


def redacted_tags(tags: Mapping[str, str], redact: Callable[[str], str]) -> tuple[tuple[str, str], ...]:
    """Tags as front ends and the journal may have them."""
    return tuple([(redact(name), redact(value)) for name, value in tags.items()])


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _user_id(marks: Mapping[str, Any]) -> str:
    """`metadata.user_id` where it is a text of a sensible length; empty otherwise."""
    metadata = marks.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
    return user_id if isinstance(user_id, str) and len(user_id) <= MAX_USER_ID_CHARS else ""


def _session_in_user_id(user_id: str) -> str:
    found = _CLAUDE_SESSION.search(user_id[-120:])
    if found:
        return found.group(1)
    parts = _object(user_id)
    session = parts.get("session_id") if parts is not None else None
    return name_of(session) if isinstance(session, str) else ""


def _object(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object that a text is; None where it is none."""
    if text[:1] not in ("{", b"{"):
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _subject(token: bytes) -> str:
    """`sub` of a JSON Web Token, whose signature nobody checks; empty where there is none."""
    parts = token.strip().split(b".")
    if len(parts) != 3 or len(parts[1]) > MAX_USER_ID_CHARS:
        return ""
    try:
        claims = _object(base64.urlsafe_b64decode(parts[1] + b"=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return ""
    subject = claims.get("sub") if claims is not None else None
    return label_of(subject) if isinstance(subject, str) else ""
