"""Which API a request speaks: decided by its raw path alone (and `anthropic-version` for the shared models list).

Paths are read as sent, before any decoding; a path that could mean something else after decoding is refused.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from urllib.parse import unquote

from msgspec import Struct
from msgspec.structs import replace


class Dialect(Enum):
    """The family of an API: it decides codecs, stream framing and the shape of errors."""

    # Members are singletons; Enum's own hash runs Python code at each look-up.
    __hash__ = object.__hash__

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"


class Operation(Enum):
    """What a request asks for; everything that is not named here is carried unread."""

    __hash__ = object.__hash__

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MODELS = "models"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    OLLAMA_CHAT = "ollama_chat"
    OLLAMA_GENERATE = "ollama_generate"
    OLLAMA_EMBED = "ollama_embed"
    OTHER = "other"


NAMES: dict[Dialect | Operation, str] = {one: one.value for kind in (Dialect, Operation) for one in kind}
"""Their values: a look-up costs a quarter of what Enum's property does."""
READ_OPERATIONS = frozenset(Operation) - {Operation.MODELS, Operation.OTHER}
"""The operations whose bodies luthien reads."""
TURNS = READ_OPERATIONS - {Operation.EMBEDDINGS, Operation.OLLAMA_EMBED, Operation.COUNT_TOKENS}
"""The operations by which a conversation goes on."""
CONVERSING = frozenset(one.value for one in TURNS)
"""Their names."""


class Endpoint(Struct, frozen=True):
    """Where a request goes and how it is read."""

    dialect: Dialect
    operation: Operation
    path: str
    """The API's own raw path (`/v1/…`, `/api/…`), without any prefix of ours; never decoded."""
    api: Dialect
    """The API that the upstream must speak; it differs from `dialect` for OpenAI paths behind an Ollama prefix."""
    upstream: str | None = None
    """The upstream named by the path's first segment; None lets `api` choose."""
    workflow: str = ""
    """From a path that begins with `/agent-workflow/{id}`: at most 200 printable characters."""


class UnsafePath(ValueError):
    """The raw path could be read in two ways; the message says which part."""


_OPERATIONS = {
    "/v1/chat/completions": Operation.CHAT,
    "/v1/completions": Operation.COMPLETIONS,
    "/v1/embeddings": Operation.EMBEDDINGS,
    "/v1/responses": Operation.RESPONSES,
    "/v1/models": Operation.MODELS,
    "/v1/messages": Operation.MESSAGES,
    "/v1/messages/count_tokens": Operation.COUNT_TOKENS,
    "/api/chat": Operation.OLLAMA_CHAT,
    "/api/generate": Operation.OLLAMA_GENERATE,
    "/api/embed": Operation.OLLAMA_EMBED,
    "/api/embeddings": Operation.OLLAMA_EMBED,
    "/api/tags": Operation.MODELS,
}
_UNSAFE = re.compile(r"//|\\|[\x00-\x20\x7f-\U0010ffff;]|%(?:00|0[aAdD]|25|3[bB]|5[cC])")
_DOT_SEGMENT = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")
MAX_PATH_CHARS = 16_384


def check_path(path: str) -> None:
    """Raise UnsafePath for a raw path that another reader could take for a different one."""
    if len(path) > MAX_PATH_CHARS:
        raise UnsafePath(f"the path is longer than {MAX_PATH_CHARS} characters")
    found = _UNSAFE.search(path)
    if found:
        raise UnsafePath(f"the path has {found.group()!r} at position {found.start()}; send it without")
    if _DOT_SEGMENT.search(unquote(path) if "%" in path else path):
        raise UnsafePath("the path has a '.' or '..' segment; send the path it stands for")


@lru_cache(maxsize=512)
def find_endpoint(path: str, anthropic_version: bool, upstreams: tuple[tuple[str, Dialect], ...]) -> Endpoint | None:
    """The endpoint that a raw path without query names, or None where no API has such a path.

    `upstreams` are the configured names with the API each speaks. Raises UnsafePath.
    """
    check_path(path)
    if path.startswith(_WORKFLOW):
        name, _, rest = path[len(_WORKFLOW) :].partition("/")
        inner = None if rest.startswith(_WORKFLOW[1:]) else find_endpoint("/" + rest, anthropic_version, upstreams)
        return None if inner is None else replace(inner, workflow=_workflow(name))
    first, _, rest = path[1:].partition("/")
    for name, api in upstreams:
        if first == name:
            return _behind_prefix(api, "/" + rest, name)
    if first in _PREFIXES:
        return _behind_prefix(_PREFIXES[first], "/" + rest, None)
    if first == "api" and rest:
        return _endpoint(Dialect.OLLAMA, Dialect.OLLAMA, path, None)
    if first == "v1" and rest:
        shared = path == "/v1/models" or path.startswith("/v1/models/")
        anthropic = _is_messages(path) or (shared and anthropic_version)
        dialect = Dialect.ANTHROPIC if anthropic else Dialect.OPENAI
        return _endpoint(dialect, dialect, path, None)
    return None


_WORKFLOW = "/agent-workflow/"
MAX_WORKFLOW_CHARS = 200


def _workflow(segment: str) -> str:
    name = unquote(segment)[:MAX_WORKFLOW_CHARS]
    return "".join([one if one.isprintable() else "?" for one in name]).strip()


_PREFIXES = {"openai": Dialect.OPENAI, "anthropic": Dialect.ANTHROPIC, "ollama": Dialect.OLLAMA}


def _is_messages(path: str) -> bool:
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def _behind_prefix(api: Dialect, path: str, upstream: str | None) -> Endpoint:
    """`path` is what follows a prefix: with or without the API's own first segment."""
    if not path.startswith(("/v1/", "/api/")):
        path = ("/api" if api is Dialect.OLLAMA else "/v1") + path
    if path.startswith("/api/"):
        dialect = Dialect.OLLAMA
    elif _is_messages(path):
        dialect = Dialect.ANTHROPIC
    elif api is Dialect.OLLAMA or (path in _OPERATIONS and path != "/v1/models"):
        dialect = Dialect.OPENAI
    else:
        dialect = api
    return _endpoint(dialect, api, path, upstream)


def _endpoint(dialect: Dialect, api: Dialect, path: str, upstream: str | None) -> Endpoint:
    operation = _OPERATIONS.get(path, Operation.OTHER)
    return Endpoint(dialect=dialect, operation=operation, path=path, api=api, upstream=upstream)
