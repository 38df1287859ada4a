"""What is put before an operator: the subject of a hold, in the exact form that is shown and that a decision is bound to."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Operation
from proxy_core.wire.headers import value_of

if TYPE_CHECKING:
    from proxy_core.transaction import TransactionContext


class HoldSubject(Struct, frozen=True, kw_only=True):
    """One request, response or tool call that a person should decide on."""

    transaction_id: str
    stage: Stage
    policy: str
    why: str
    """For people."""
    content: str
    """Of a tool call its arguments as JSON text, of a request or response its body."""
    operation: Operation = Operation.OTHER
    streamed: bool = False
    """Whether the content is the text of a stream."""
    target: str = ""
    """Method, path and upstream: what tells apart requests with the same body."""
    key: str = ""
    """Name or fingerprint of the client's key."""
    session_id: str = ""
    agent: str = ""
    model: str = ""
    tool: str = ""
    call_id: str = ""
    tool_schema: str = ""
    """JSON schema of the tool's arguments, as JSON text; empty where none is known."""
    secrets: tuple[bytes, ...] = ()
    """Known credentials, never to be recorded."""


def subject_of(
    context: TransactionContext,
    *,
    stage: Stage,
    why: str,
    content: str,
    tool: str = "",
    call_id: str = "",
    tool_schema: str = "",
) -> HoldSubject:
    """The subject that the running policy of `context` wants held."""
    streamed = stage is Stage.RESPONSE and value_of(context.response_headers, b"content-type").startswith(
        ("text/event-stream", "application/x-ndjson")
    )
    return HoldSubject(
        transaction_id=context.transaction_id,
        stage=stage,
        policy=context.policy,
        why=why,
        content=content,
        operation=context.operation,
        streamed=streamed,
        target=f"{context.method} {context.target.decode('latin-1')} {context.route.upstream}",
        key=context.key,
        session_id=context.session.session_id,
        agent=context.agent,
        model=context.conversation.model or "",
        tool=tool,
        call_id=call_id,
        tool_schema=tool_schema,
        secrets=context.services.secrets(context),
    )


def shown_hash(stage: str, tool: str, content: str) -> str:
    """What a decision must name: SHA-256 in hex over `{stage}\\n{bytes of tool}\\n{tool}{content}` in UTF-8."""
    name = tool.encode("utf-8", "backslashreplace")
    digest = hashlib.sha256(f"{stage}\n{len(name)}\n".encode() + name)
    digest.update(content.encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def legible(subject: HoldSubject) -> HoldSubject:
    """The subject without lone surrogates, which no encoding can carry: they stand as their JSON escapes."""
    changed = {
        name: text.encode("utf-8", "backslashreplace").decode()
        for name in ("why", "content", "target", "key", "session_id", "agent", "model", "tool", "call_id", "tool_schema")
        if not (text := getattr(subject, name)).isascii()
    }
    return replace(subject, **changed) if changed else subject
