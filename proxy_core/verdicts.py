"""What a policy said of a transaction: the words that chain, record, API and screen share.

A verdict is honest: it says whether the policy ran at all. "Not run" is never "passed", and a score that could not be
computed is None, never 0.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, TypeAlias

from msgspec import Struct

from proxy_core.routing.reasons import Reason

Mode: TypeAlias = Literal["enforce", "shadow", "off"]
OnError: TypeAlias = Literal["deny", "allow", "hold"]
Action: TypeAlias = Literal["allow", "flag", "modify", "route", "hold", "deny"]
Ran: TypeAlias = Literal["ran", "skipped", "unsupported", "partial", "error"]
"""`partial`: it saw only a part; `error`: it failed, and its `on_error` decided."""

SEVERITY: dict[str, int] = {"allow": 0, "flag": 1, "route": 2, "modify": 3, "hold": 4, "deny": 5}
"""The worst verdict of enforcing policies is the transaction's."""


class Stage(StrEnum):
    """Where in a transaction something happens."""

    REQUEST = "request"
    """Before anything is sent to the upstream."""
    RESPONSE = "response"
    """After the upstream has begun to answer."""
    TOOL_CALL = "tool_call"
    """One tool call of the response."""


class Verdict(Struct, frozen=True, kw_only=True):
    """One policy's word on one transaction, or on one tool call of it."""

    policy: str
    """Name of the policy in its chain."""
    stage: Stage
    mode: Mode
    ran: Ran = "ran"
    action: Action = "allow"
    """In shadow mode: what it would have done."""
    reason: Reason = Reason.PASSED
    message: str = ""
    """For people; may quote traffic, so it goes through a sanitiser before it is shown. Holds no secret."""
    score: float | None = None
    """None where none was computed."""
    ms: float = 0.0
    """Time that the policy took, in ms."""
    at_ms: float = 0.0
    """When, in ms since the first byte of the request."""
    detail: dict[str, Any] = {}
    """JSON values: counts, names, ids."""
