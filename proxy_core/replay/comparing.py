"""What came out differently: a recorded transaction and its replay, compared as a person would.

Pure. What the recording does not say is not compared; answers are read by the dialect's codec, so that a difference is one of
text, tool calls or counts before it is one of bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from proxy_core.interceptors.recording_format import Facts, RecordedVerdict
from proxy_core.replay.exchanges import MADE_UP, Answered, Exchange
from proxy_core.routing.reasons import Reason
from proxy_core.transaction_row import TransactionRow
from proxy_core.verdicts import Verdict
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import Answer, ToolCallBlock, Usage
from proxy_core.wire.dialects import Operation
from proxy_core.wire.encodings import UnreadableEncoding, decoded

KINDS = ("status", "verdict", "verdicts", "text", "tool_calls", "stop_reason", "bytes", "tokens", "cost", "route", "ending")
"""What may differ, the weightier first."""
_HOLDS = frozenset({Reason.HELD, Reason.APPROVED, Reason.APPROVED_EDITED, Reason.DENIED_BY_OPERATOR, Reason.HOLD_EXPIRED})
_NOT_POLICIES = frozenset({"routing"})


class Difference(Struct, frozen=True):
    """One thing that differs; both sides as text, hostile text included."""

    kind: str
    """One of KINDS."""
    before: str
    after: str


class Outcome(Struct, kw_only=True):
    """How a replayed transaction ended."""

    answer: Answered | None
    """What the client was given; None where the connection ended before."""
    facts: Facts
    operation: str = ""
    """A value of wire.dialects.Operation; empty where the path belongs to no API."""


def compare(exchange: Exchange, now: Outcome, *, live: bool = False, routed: bool = True) -> list[Difference]:
    """All that differs, in the order of KINDS. Of a live answer, bytes, ids and the way there are not compared, nor are way and
    cost where it was not `routed` as in the recording, nor bytes where another program recorded them."""
    found: list[Difference] = []
    before, facts = exchange.client, exchange.facts
    left = facts is not None and facts.outcome == "cancelled"
    if before is not None and not left:
        _answers(found, exchange, before, now, live=live)
    if facts is not None:
        _facts(found, facts, now.facts, live=live, left=left)
        if not routed:
            found = [one for one in found if one.kind not in ("route", "cost")]
    found.sort(key=lambda one: KINDS.index(one.kind))
    return found


def _answers(found: list[Difference], exchange: Exchange, before: Answered, now: Outcome, *, live: bool) -> None:
    after = now.answer
    if after is None:
        _note(found, "status", str(before.status), "no answer")
        return
    _note(found, "status", str(before.status), str(after.status))
    cut = exchange.cut
    if before.body == after.body or (cut and after.body.startswith(before.body)) or ("body" in exchange.redacted and cut):
        return
    broke = exchange.facts is not None and exchange.facts.outcome == "truncated"
    if broke and after.body.startswith(before.body):
        return  # what luthien added to a stream that broke off is not in the recording
    one, other = read_answer(now.operation, before), read_answer(now.operation, after)
    seen = len(found)
    if one is None or other is None:
        if not live or before.status != after.status:
            _note(found, "text", _plain(before), _plain(after))
        return
    _note(found, "text", _said(one), _said(other))
    _note(found, "tool_calls", _calls(one, ids=not live), _calls(other, ids=not live))
    _note(found, "stop_reason", one.stop_reason or "", other.stop_reason or "")
    if exchange.facts is None:
        _note(found, "tokens", _usage(one.usage), _usage(other.usage))
    if len(found) == seen and not live and exchange.facts is not None:
        # Other programs write bodies anew, and policies cut streams anew: then only what is said counts.
        _note(found, "bytes", _plain(before), _plain(after))


def _facts(found: list[Difference], before: Facts, after: Facts, *, live: bool, left: bool) -> None:
    if not left:
        _note(found, "verdict", before.verdict, after.verdict)
        if not live:
            _note(found, "ending", before.outcome, after.outcome)
            if not before.upstream.startswith(MADE_UP):
                _note(found, "route", before.upstream, after.upstream)
        _note(found, "tokens", _counts(before), _counts(after))
        if not _same_cost(before.cost_usd, after.cost_usd):
            _note(found, "cost", _usd(before.cost_usd), _usd(after.cost_usd))
    _note(found, "verdicts", *_verdicts(before.verdicts, after.verdicts, only_request=left))


def _note(found: list[Difference], kind: str, before: str, after: str) -> None:
    if before != after:
        found.append(Difference(kind, before, after))


# --- answers ---


def read_answer(operation: str, answered: Answered) -> Answer | None:
    """An answer in the canonical form; None where nobody can read it."""
    codec = codec_for(Operation(operation)) if operation else None
    if codec is None:
        return None
    body = body_without_encoding(answered)
    if answered.is_stream:
        decoder = codec.stream_decoder()
        decoder.feed(body)
        return decoder.finish()
    return codec.read_response(body)


def body_without_encoding(answered: Answered) -> bytes:
    try:
        return decoded(answered.body, answered.header(b"content-encoding").decode("latin-1"))
    except UnreadableEncoding:
        return answered.body


def _plain(answered: Answered) -> str:
    return body_without_encoding(answered).decode("utf-8", "replace")


def _said(answer: Answer) -> str:
    """Text of an answer, and the error that it is or ends with."""
    if answer.error is None:
        return answer.text
    error = f"{answer.error.type}: {answer.error.message}"
    return f"{answer.text}\n{error}" if answer.text else error


def _calls(answer: Answer, *, ids: bool) -> str:
    return "\n".join(_call(call, ids=ids) for call in answer.tool_calls)


def _call(call: ToolCallBlock, *, ids: bool) -> str:
    arguments = call.arguments
    try:
        arguments = msgspec.json.encode(msgspec.json.decode(arguments), order="sorted").decode()
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        pass
    return f"{call.name}({arguments})" + (f" {call.call_id}" if ids and call.call_id else "")


def _usage(usage: Usage | None) -> str:
    return "unknown" if usage is None else f"{_number(usage.input_tokens)} in, {_number(usage.output_tokens)} out"


# --- facts ---


def _counts(facts: Facts) -> str:
    cached = f", {facts.cached_tokens} cached" if facts.cached_tokens else ""
    return f"{_number(facts.input_tokens)} in, {_number(facts.output_tokens)} out{cached}"


def _number(count: int | None) -> str:
    return "?" if count is None else str(count)


def _usd(cost: float | None) -> str:
    return "unknown" if cost is None else f"${cost:.6f}"


def _same_cost(before: float | None, after: float | None) -> bool:
    if before is None or after is None:
        return before is after
    return math.isclose(before, after, rel_tol=1e-9, abs_tol=1e-12)


def _verdicts(before: Sequence[RecordedVerdict], after: Sequence[RecordedVerdict], *, only_request: bool) -> tuple[str, str]:
    """What policies said, on both sides as lines. Of shadow policies, which may speak after the record was written, only what
    both sides have is compared."""
    kept_before, kept_after = _of_policies(before, only_request), _of_policies(after, only_request)
    shadows = {one.policy for one in kept_before if one.mode == "shadow"} & {
        one.policy for one in kept_after if one.mode == "shadow"
    }
    return tuple(  # type: ignore[return-value]
        "\n".join(sorted(_verdict(one) for one in kept if one.mode != "shadow" or one.policy in shadows))
        for kept in (kept_before, kept_after)
    )


def _of_policies(verdicts: Iterable[RecordedVerdict], only_request: bool) -> list[RecordedVerdict]:
    return [one for one in verdicts if one.policy not in _NOT_POLICIES and (not only_request or one.stage == "request")]


def _verdict(one: RecordedVerdict) -> str:
    """A verdict as a line. Why a hold ended is a person's matter or the clock's, so only what came of it counts."""
    reason = "held" if one.reason in _HOLDS else one.reason
    mode = "" if one.mode == "enforce" else f" ({one.mode})"
    ran = "" if one.ran == "ran" else f" {one.ran}"
    score = "" if one.score is None else f" {one.score:.4g}"
    return f"{one.policy}{mode} at {one.stage}: {one.action} {reason}{ran}{score}"


def recorded(verdicts: Iterable[Verdict]) -> list[RecordedVerdict]:
    """Verdicts as a recording has them."""
    return [
        RecordedVerdict(
            policy=one.policy,
            stage=str(one.stage),
            action=one.action,
            reason=str(one.reason),
            mode=one.mode,
            ran=one.ran,
            message=one.message,
            score=one.score,
        )
        for one in verdicts
    ]


def facts_of(row: TransactionRow, verdicts: list[RecordedVerdict]) -> Facts:
    """What the journal has of a transaction, as a recording says it."""
    return Facts(
        outcome=row.outcome,
        verdict=row.verdict,
        verdicts=verdicts,
        session_id=row.session_id,
        agent=row.agent,
        upstream=row.upstream,
        reason=row.reason,
        model=row.model,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cached_tokens=row.cached_tokens,
        reasoning_tokens=row.reasoning_tokens,
        estimated=row.estimated,
        cost_usd=row.cost_usd,
        stop_reason=row.stop_reason,
        tool_calls=row.tool_calls,
        error=row.error,
    )
