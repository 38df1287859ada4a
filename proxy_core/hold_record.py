"""HoldRecord: one thing that happened to a hold, as the journal keeps it.

A hold leaves a record when it begins and one at each change; records are appended, never updated. The newest record of an id
says how the hold stands, the first one says what was held. It knows nobody, so that journal and queue can share it.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

HoldStatus = Literal["pending", "approved", "edited", "denied", "expired", "withdrawn"]


class HoldRecord(Struct, frozen=True, kw_only=True):
    """One change of one hold."""

    id: str
    transaction_id: str
    """The transaction that was held; of a retry that joined, the retry's."""
    stage: str
    """`request`, `response` or `tool_call`."""
    policy: str
    why: str
    content: str
    """What is held, in full, in the first record of an id; empty in later ones, and where too much was held already."""
    shown: str
    """SHA-256 over stage, tool and content, in every record."""
    created_ns: int
    """Unix time in nanoseconds at which the hold began."""
    deadline_ns: int
    """Unix time in nanoseconds at which `on_timeout` decides."""
    status: HoldStatus
    decided_by: str = ""
    """The operator's name, `luthien` where nobody decided; empty while it is pending."""
    message: str = ""
    """What the operator said, or what happened."""
    edited: str | None = None
    """The content that took the place of what was held."""
    at_ns: int
    """Unix time in nanoseconds of this change."""
    on_timeout: str = "deny"
    operation: str = ""
    """A value of wire.dialects.Operation."""
    streamed: bool = False
    """Whether the content is the text of a stream."""
    target: str = ""
    """Method, path and upstream of the request."""
    key: str = ""
    session_id: str = ""
    agent: str = ""
    model: str = ""
    tool: str = ""
    call_id: str = ""
    tool_schema: str = ""
    """Like `content`, in the first record only."""
    secrets: tuple[bytes, ...] = ()
    """Known credentials to take out of whatever is stored."""
