"""One transaction as a line of the live view: small, flat, without bodies.

The gateway owns and mutates the row of a running transaction; readers on the same loop look at it and never write.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

State = Literal["receiving", "waiting", "held", "streaming", "done"]
Outcome = Literal["", "ok", "error", "truncated", "cancelled", "refused", "lost"]


class TransactionRow(Struct, gc=False, kw_only=True):
    """What is known so far; None is unknown, never zero."""

    transaction_id: str
    started_at: float
    """Unix time in seconds at the first byte of the request."""
    started_monotonic: float = 0.0
    """The loop's clock at the same moment; 0 for a row read back from the journal."""
    version: int = 0
    """Grows with each published change."""
    method: str = "POST"
    path: str = ""
    """Raw path as the client sent it, without the query."""
    dialect: str = ""
    """`openai`, `anthropic` or `ollama`."""
    operation: str = ""
    """A value of wire.dialects.Operation."""
    state: State = "receiving"
    outcome: Outcome = ""
    """Empty while it runs. `ok`: a whole answer below 400; `error`: status ≥ 400 or an error in the stream; `truncated`: the
    upstream ended early; `cancelled`: the client left; `refused`: luthien itself refused; `lost`: the journal has
    the request but no outcome."""
    session_id: str = ""
    """Empty where none could be told."""
    agent: str = ""
    model: str = ""
    upstream: str = ""
    reason: str = ""
    """Routing reason code."""
    status: int | None = None
    """HTTP status sent to the client."""
    verdict: str = "allow"
    """`allow`, `flag`, `modify`, `route`, `hold` or `deny`."""
    stream: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: float | None = None
    """None: price or usage unknown."""
    ttft_ms: float | None = None
    """From the first byte of the request to the first token (or first body byte) from the upstream."""
    total_ms: float | None = None
    """From the first byte of the request to the last byte of the answer; None while it runs."""
    overhead_ms: float | None = None
    """Time spent in luthien before the request was sent upstream."""
    request_bytes: int = 0
    response_bytes: int = 0
    """Body bytes so far; grows while a stream runs."""
    chunks: int = 0
    """Body chunks forwarded so far."""
    preview: str = ""
    """The beginning of the last user message, at most 120 characters, hostile text included: show it only through a sanitiser."""
    error: str = ""
    """What went wrong, in one line."""
    stop_reason: str = ""
    tool_calls: int = 0
    user: str = ""
    """Whom the request was made for, as the client says."""
    tags: tuple[tuple[str, str], ...] = ()
    """Names and values that the client gave it."""
    workflow: str = ""
    """From a path that begins with `/agent-workflow/{id}`."""
    parent_session: str = ""
    """The session whose agent started this one's; empty for most."""
    link: str = ""
    """How the session was told: `header`, `mark`, `response`, `prefix`, `inferred`, `new` or `none`."""
    side: bool = False
    """Whether it stands beside the conversation: a title, a summary, a memory."""
    estimated: bool = False
    """Whether the token counts are luthien's estimate, because the upstream gave none."""

    @property
    def tokens(self) -> int | None:
        if self.input_tokens is None and self.output_tokens is None:
            return None
        return (self.input_tokens or 0) + (self.output_tokens or 0)
