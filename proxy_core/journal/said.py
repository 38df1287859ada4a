"""What policies said, as it is stored: verdicts as JSON without secrets, and back.

Text of a verdict may quote the traffic, so it is treated like a body: redacted, or in capture mode `metadata` replaced by
its length and hash. It is redacted value by value, before encoding: a secret can never break the JSON. Whatever a policy
put into `detail` gives a bounded value; reading never fails on codes that this version does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from proxy_core.routing.reasons import Reason
from proxy_core.verdicts import Stage, Verdict

MAX_VERDICTS = 1_000
MAX_ITEMS = 200
MAX_DEPTH = 6
MAX_CHARS = 2_000

Keep = Callable[[str], str]
"""What may be stored of a text."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Verdict]).decode
_FIELDS = frozenset(Verdict.__struct_fields__)
_REASONS = frozenset(reason.value for reason in Reason)


def stored_verdicts(verdicts: Sequence[Verdict], keep: Keep) -> bytes:
    """Verdicts as JSON; of more than 1,000 the first."""
    kept = [_kept(one, keep) for one in verdicts[:MAX_VERDICTS]]
    try:
        return _encode(kept)
    except (TypeError, ValueError, OverflowError):  # a policy gave something that is no verdict
        return _encode([_storable(one) for one in kept])


def read_verdicts(stored: bytes | None) -> tuple[Verdict, ...]:
    """Verdicts as they were stored. A reason of another version becomes `policy_decision`, with its code in the message."""
    if not stored:
        return ()
    try:
        return tuple(_decode(stored))
    except msgspec.ValidationError:
        return tuple(_understood(entry) for entry in msgspec.json.decode(stored))


def plain(value: Any, keep: Keep, depth: int = 0) -> Any:
    """`value` as bounded JSON: texts go through `keep`, anything that is no JSON value becomes the name of its type."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -(2**53) < value < 2**53 else keep(str(value)[:MAX_CHARS])
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return keep(str(value[:MAX_CHARS]))
    if isinstance(value, bytes | bytearray | memoryview):
        return keep(bytes(value[:MAX_CHARS]).decode("utf-8", "replace"))
    if depth >= MAX_DEPTH:
        return "…"
    if isinstance(value, dict):
        items = list(value.items())[:MAX_ITEMS]
        return {keep(_name(name)) if depth else _name(name): plain(inner, keep, depth + 1) for name, inner in items}
    if isinstance(value, list | tuple):
        return [plain(inner, keep, depth + 1) for inner in value[:MAX_ITEMS]]
    if isinstance(value, set | frozenset):
        return sorted((plain(inner, keep, depth + 1) for inner in list(value)[:MAX_ITEMS]), key=repr)
    return f"<{type(value).__name__}>"


def _kept(verdict: Verdict, keep: Keep) -> Verdict:
    if not verdict.message and not verdict.detail and isinstance(verdict.score, float | None):
        return verdict
    score = plain(verdict.score, keep)
    return replace(
        verdict,
        message=keep(str(verdict.message)[:MAX_CHARS]),
        score=float(score) if isinstance(score, int | float) else None,
        detail=plain(verdict.detail, keep) if isinstance(verdict.detail, dict) else {},
    )


def _storable(verdict: Verdict) -> Verdict:
    try:
        _encode(verdict)
    except (TypeError, ValueError, OverflowError):
        return _junk(verdict.policy)
    return verdict


def _understood(entry: Any) -> Verdict:
    fields = {name: value for name, value in entry.items() if name in _FIELDS} if isinstance(entry, dict) else {}
    if fields.get("reason") not in _REASONS:
        fields["message"] = f"{fields.get('reason')}: {fields.get('message', '')}"
        fields["reason"] = Reason.POLICY_DECISION
    try:
        return msgspec.convert(fields, Verdict)
    except msgspec.ValidationError:
        return _junk(fields.get("policy"))


def _junk(policy: object) -> Verdict:
    """What stands for a verdict that is none."""
    name = _name(policy) if isinstance(policy, str) else "?"
    words = "what it said could not be recorded"
    return Verdict(policy=name, stage=Stage.REQUEST, mode="enforce", ran="error", reason=Reason.POLICY_JUNK, message=words)


def _name(name: Any) -> str:
    return str(name)[:200].encode("utf-8", "replace").decode("utf-8") if isinstance(name, str) else f"<{type(name).__name__}>"
