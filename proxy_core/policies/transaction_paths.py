"""Paths into a transaction: `request.payload.messages.-1.content`, `response.status`, `tags.team`, `route.upstream`.

Names and list indices with dots between them. Bodies are parsed once for each evaluation, and only where a path asks for
them; a path that leads nowhere gives None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from proxy_core.transaction import TransactionContext
from proxy_core.wire.conversation import TextBlock, ToolResultBlock

Resolve: TypeAlias = Callable[[str], Any]
"""Gives the value at a path, None where there is none."""

ROOTS = (
    "request",
    "response",
    "transaction_id",
    "session",
    "agent",
    "key",
    "user",
    "workflow",
    "tags",
    "route",
    "data",
    "dialect",
    "operation",
    "stream",
)
REQUEST_FIELDS = ("payload", "headers", "method", "target", "api_endpoint", "api_key", "model", "last_user_text", "size")
RESPONSE_FIELDS = ("payload", "headers", "status", "text", "stop_reason")


def at_path(value: Any, names: Sequence[str]) -> Any:
    """What stands at `names` inside JSON values; None where nothing does."""
    for name in names:
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list):
            index = int(name) if re.fullmatch(r"-?[0-9]{1,9}", name) else None
            value = value[index] if index is not None and -len(value) <= index < len(value) else None
        else:
            return None
    return value


def resolver(context: TransactionContext) -> Resolve:
    """Values of a transaction by path. Bodies are parsed once, and only where a path asks for them."""
    payloads: dict[str, Any] = {}

    def payload(of: str, body: bytes) -> Any:
        if of not in payloads:
            try:
                payloads[of] = msgspec.json.decode(body)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                payloads[of] = None
        return payloads[of]

    def resolve(path: str) -> Any:
        root, *names = path.split(".")
        if root in ("request", "response"):
            if not names:
                return None
            if names[0] == "payload":
                body = context.request_body if root == "request" else context.response_body
                return at_path(payload(root, body), names[1:])
            of = _of_request if root == "request" else _of_response
            return at_path(of(context, names[0]), names[1:])
        return at_path(_of_context(context, root), names)

    return resolve


def _of_request(context: TransactionContext, name: str) -> Any:
    match name:
        case "headers":
            return _headers(context.request_headers)
        case "method":
            return context.method
        case "target":
            return context.target.decode("latin-1")
        case "api_endpoint":
            return str(context.request.url) if context.request is not None else None
        case "api_key":
            bearer = context.header(b"authorization")
            return context.header(b"x-api-key") or bearer.removeprefix("Bearer ").removeprefix("bearer ") or None
        case "model":
            return context.conversation.model
        case "last_user_text":
            return last_user_text(context)
        case "size":
            return len(context.request_body)
    return None


def _of_response(context: TransactionContext, name: str) -> Any:
    if context.response_status is None:
        return None
    match name:
        case "headers":
            return _headers(context.response_headers)
        case "status":
            return context.response_status
        case "text":
            return context.answer.text if context.answer is not None else None
        case "stop_reason":
            return context.answer.stop_reason if context.answer is not None else None
    return None


def _of_context(context: TransactionContext, root: str) -> Any:
    match root:
        case "transaction_id":
            return context.transaction_id
        case "session":
            return msgspec.structs.asdict(context.session)
        case "agent":
            return context.agent
        case "key":
            return context.key
        case "user":
            return context.user
        case "workflow":
            return context.workflow
        case "tags":
            return context.tags
        case "route":
            route = context.route
            return {"upstream": route.upstream, "reason": route.reason, "dialect": route.dialect.value}
        case "data":
            return context.data
        case "dialect":
            return context.dialect.value
        case "operation":
            return context.operation.value
        case "stream":
            return context.stream
    return None


def _headers(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """By name in lower case; the first of several."""
    found: dict[str, str] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return found


def last_user_text(context: TransactionContext) -> str | None:
    """The text of the last message that a user wrote; empty where none did, None where the request cannot be read."""
    conversation = context.conversation
    if conversation.problem is not None:
        return None
    for message in reversed(conversation.messages):
        answers_tools = bool(message.blocks) and all(isinstance(block, ToolResultBlock) for block in message.blocks)
        if message.role == "user" and not answers_tools:
            return "\n".join(block.text for block in message.blocks if isinstance(block, TextBlock))
    return ""
