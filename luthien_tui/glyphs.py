"""How the state of a transaction, a hold, a policy or an upstream looks: a sign, a word and a tone.

Words carry the meaning; signs and tones help the eye.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from luthien_tui.text import cell
from proxy_core.control.routing_infos import UpstreamInfo
from proxy_core.control.rows import TransactionRow
from proxy_core.control.session_infos import SessionInfo

Tone = Literal["ok", "quiet", "busy", "notice", "warning", "error"]


class Face(NamedTuple):
    """How a state shows."""

    sign: str
    word: str
    tone: Tone


RUNNING: dict[str, Face] = {
    "receiving": Face("↑", "receiving", "quiet"),
    "waiting": Face("…", "waiting", "busy"),
    "streaming": Face("▸", "streaming", "busy"),
}
OUTCOMES: dict[str, Face] = {
    "error": Face("✗", "error", "error"),
    "truncated": Face("¦", "truncated", "warning"),
    "cancelled": Face("○", "cancelled", "quiet"),
    "refused": Face("✗", "refused", "error"),
}
VERDICTS: dict[str, Face] = {
    "allow": Face("✓", "allow", "ok"),
    "flag": Face("!", "flagged", "notice"),
    "modify": Face("~", "modified", "notice"),
    "route": Face("→", "routed", "notice"),
    "hold": Face("‖", "held", "warning"),
    "deny": Face("✗", "denied", "error"),
}
MODES: dict[str, Face] = {
    "enforce": Face("●", "enforce", "ok"),
    "shadow": Face("◐", "shadow", "notice"),
    "off": Face("○", "off", "quiet"),
}
HOLDS: dict[str, Face] = {
    "pending": Face("‖", "waits", "warning"),
    "approved": Face("✓", "approved", "ok"),
    "edited": Face("~", "approved, edited", "notice"),
    "denied": Face("✗", "denied", "error"),
    "expired": Face("○", "expired", "quiet"),
    "withdrawn": Face("○", "withdrawn", "quiet"),
}
UPSTREAMS: dict[str, Face] = {
    "active": Face("●", "serving", "ok"),
    "drained": Face("◐", "drained", "warning"),
    "frozen": Face("■", "frozen", "warning"),
    "half_open": Face("◐", "trying again", "warning"),
    "open": Face("✗", "breaker open", "error"),
}
SESSIONS: dict[str, Face] = {
    "waits": Face("‖", "waits", "warning"),
    "running": Face("▸", "running", "busy"),
    "active": Face("●", "active", "ok"),
    "inactive": Face("○", "inactive", "quiet"),
    "completed": Face("·", "ended", "quiet"),
}
PULSE = "▏▎▍▌▋▊▉█"
"""The sign at the end of a running row; it moves once a second."""


def face(row: TransactionRow) -> Face:
    """What matters most about a row now: what holds or failed it before what allowed it."""
    if row.state != "done":
        if row.state == "held":
            return VERDICTS["hold"]
        return RUNNING.get(row.state, RUNNING["waiting"])
    if row.verdict == "deny":
        return VERDICTS["deny"]
    if row.outcome == "error" and row.status is not None and row.status >= 400:
        return Face("✗", "upstream", "error")
    if known := OUTCOMES.get(row.outcome):
        return known
    if row.verdict == "route" and row.upstream:
        return VERDICTS["route"]._replace(word=cell(row.upstream))
    return VERDICTS.get(row.verdict, Face("?", cell(row.verdict), "notice"))


def upstream(one: UpstreamInfo) -> Face:
    """What an operator wants of an upstream, else how it does."""
    if one.state != "active":
        return UPSTREAMS[one.state]
    return UPSTREAMS.get(one.breaker, UPSTREAMS["active"])


def session(one: SessionInfo, *, waits: bool) -> Face:
    """How a session stands; `waits`: something of it waits for the operator."""
    return SESSIONS["waits" if waits else "running" if one.totals.running else one.status]


def status_tone(status: int | None) -> Tone:
    if status is None:
        return "quiet"
    return "error" if status >= 500 else "warning" if status >= 400 else "ok"
