"""What the control API takes and gives: its JSON, as types.

Answers are the structs that the ControlPlane gives, or ones made of them, encoded by msgspec: a client that has this package
can read them back into the same types. What comes in is checked by pydantic.
"""

from __future__ import annotations

import base64
from typing import Any, Literal

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field

from proxy_core.control.change_infos import ChangeInfo
from proxy_core.control.diff import Change
from proxy_core.control.plane import HoldInfo, PolicyInfo, Timing
from proxy_core.control.rows import TransactionRow
from proxy_core.control.session_infos import AgentInfo, Count
from proxy_core.routing.explaining import USUAL_PATH
from proxy_core.verdicts import Verdict

# --- answers ---


class Forms(Struct, kw_only=True):
    """A body as it came and as it went on."""

    headers: tuple[tuple[str, str], ...]
    """Names in lower case, values of credentials taken out."""
    original: str
    """As it came: of a request from the client, of a response from the upstream."""
    final: str
    """As it went on: of a request to the upstream, of a response to the client."""
    encoding: Literal["utf-8", "base64"]
    """How the two are written here: `base64` where one of them is not UTF-8."""
    changed: bool
    """Whether policies changed anything in it; true too where the two forms differ only in what is redacted here."""
    diff: tuple[Change, ...]
    """What they changed, in canonical form; empty with `changed` where only the way it is written differs."""
    diff_truncated: bool = False
    """Whether more differs than is told."""


class TransactionDetails(Struct, kw_only=True):
    """One transaction with its bodies."""

    row: TransactionRow
    policy_digest: str
    """Digest of the version of the policies that it saw; empty where none was configured."""
    verdicts: tuple[Verdict, ...]
    timing: Timing
    redacted: bool
    """Whether a secret was taken out of a body, so that it differs here from what was sent."""
    capture_note: str
    """Why a body is absent or cut, if it is."""
    request: Forms
    response: Forms


class TransactionList(Struct, kw_only=True):
    """Transactions, newest first."""

    transactions: list[TransactionRow]
    next: str | None
    """Give it as `cursor` to go on; null at the end. A page may hold fewer than `limit` and still have a next one."""


class PolicyList(Struct, kw_only=True):
    """Every policy of every chain, in order."""

    policies: list[PolicyInfo]
    next: str | None = None


class AgentList(Struct, kw_only=True):
    """Agents, those with the latest requests first."""

    agents: tuple[AgentInfo, ...]
    next: str | None = None


class ChangeList(Struct, kw_only=True):
    """What was set otherwise, the newest first."""

    changes: tuple[ChangeInfo, ...]
    next: str | None = None


class TagUse(Struct, kw_only=True):
    """One name of tags."""

    name: str
    values: tuple[Count, ...]
    """Its values, the most used first, at most 100; each with the requests that have it."""


class SessionTags(Struct, kw_only=True):
    """Tags in use, by name, among the latest 20,000 tagged requests."""

    tags: tuple[TagUse, ...]
    next: str | None = None


class HoldList(Struct, kw_only=True):
    """What waits for a person, oldest first; then, where asked for, what was decided lately."""

    holds: list[HoldInfo]
    next: str | None = None


class Killed(Struct, kw_only=True):
    """A transaction was ended."""

    transaction_id: str
    killed: bool = True


class EventData(Struct, kw_only=True):
    """The data of an event of the feed."""

    sequence: int
    kind: str
    """`started`, `routed`, `policy`, `held`, `released`, `first_token`, `finished` or `control_changed`."""
    note: str
    """What exactly: the policy, the hold's id, what was changed by whom."""
    row: TransactionRow | None
    """The transaction as it is now, which may be newer than the event; null where the event concerns none."""


class ErrorBody(Struct, kw_only=True):
    """What went wrong."""

    code: str
    message: str


class ErrorAnswer(Struct, kw_only=True, omit_defaults=True):
    """The body of every answer that is no success."""

    error: ErrorBody
    detail: list[dict[str, Any]] = []
    """With 422: `loc` (the field, as a list of its parts) and `msg` of each fault."""


# --- what comes in ---


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, hide_input_in_errors=True)


class PolicyChange(_Given):
    """A change of a policy; what is left out stays."""

    mode: Literal["enforce", "shadow", "off"] | None = None
    """Whether it acts, only records what it would have done, or rests."""
    params: dict[str, Any] | None = None
    """Parameters to change, by name."""


class RoutingChange(_Given):
    """A change of routing; what is left out stays."""

    params: dict[str, Any] | None = None
    """Rules to change, by name, such as `cost.max_prompt_length_for_local`; null unsets one."""
    override: Literal["", "local"] | None = None
    """`local` keeps every request local from now on, the empty text lets the rules decide again."""


class UpstreamChange(_Given):
    """What an operator wants of an upstream."""

    state: Literal["active", "drained", "frozen"]


class WhatIfQuestion(_Given):
    """Changed rules, and how much of the recorded traffic they are tried on."""

    params: dict[str, Any]
    """Rules that would be changed, by name; null would unset one."""
    limit: int = Field(default=1_000, ge=1, le=5_000)
    """How many of the latest transactions are looked at."""


class RouteQuestion(_Given):
    """A request that nobody sends."""

    path: str = Field(default=USUAL_PATH, max_length=1_000)
    """The path that it would have."""
    model: str = Field(default="", max_length=200)
    """The model that would be asked for; of a `body` its own, where this is empty."""
    prompt: str = ""
    """What the user would say."""
    body: str | None = None
    """Or the whole request, as JSON text."""
    tags: str = Field(default="", max_length=4_000)
    """Tags as in `x-luthien-tags`: `team:legal,debug`."""


class Decision(_Given):
    """An answer to a hold."""

    decision: Literal["approve", "edit", "deny"]
    shown: str = Field(max_length=200)
    """The hold's `shown`, as it was when the decision was taken: 409 where it is another by now."""
    edited: str | dict[str, Any] | list[Any] | None = None
    """With `edit`: what takes the place of the content. Of a tool call its arguments, as JSON text or as JSON."""
    reason: str = Field(default="", max_length=2_000)
    """What the client is told, with `deny`."""


class Extension(_Given):
    """More time for a hold."""

    seconds: float = Field(gt=0, le=86_400)


def forms(
    *,
    headers: tuple[tuple[str, str], ...],
    original: bytes,
    final: bytes,
    changed: bool,
    changes: tuple[Change, ...] = (),
    truncated: bool = False,
) -> Forms:
    """The two forms of a body, as text where both are."""
    encoding: Literal["utf-8", "base64"] = "utf-8"
    try:
        first = original.decode()
        last = first if final == original else final.decode()
    except UnicodeDecodeError:
        encoding = "base64"
        first = base64.b64encode(original).decode("ascii")
        last = first if final == original else base64.b64encode(final).decode("ascii")
    return Forms(
        headers=headers,
        original=first,
        final=last,
        encoding=encoding,
        changed=changed,
        diff=changes,
        diff_truncated=truncated,
    )
