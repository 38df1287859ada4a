"""What the policies made of a transaction, as a document: each word in its order, then what differs between the forms.

A diff is of the canonical form, so it says what changed and not how it was cut. May run in a thread.
"""

from __future__ import annotations

from luthien_tui import figures, glyphs
from luthien_tui.documents import Piece, PieceDocument, wrap
from luthien_tui.text import cell
from proxy_core.control.diff import Change, Diff, diff_request, diff_response
from proxy_core.control.plane import TransactionDetail
from proxy_core.verdicts import Verdict
from proxy_core.wire.dialects import Operation

INDENT = 4
WIDE = 98
"""Cells from which on a verdict stands in one line."""
_RAN_TONES = {"ran": "", "skipped": "quiet", "unsupported": "warning", "partial": "warning", "error": "error"}
_SIGNS = {"added": ("+", "ok"), "removed": ("-", "error"), "changed": ("~", "notice")}


def verdicts_document(detail: TransactionDetail, width: int) -> PieceDocument:
    """The decision list, the version of the chain, and both diffs."""
    document = PieceDocument()
    if not detail.verdicts:
        document.line(("No policy has said anything of this transaction.", "quiet"))
    else:
        _head(document, width)
    for verdict in detail.verdicts:
        _verdict(document, verdict, width)
    if detail.policy_digest:
        document.line(("", ""))
        document.line(("chain  ", "quiet"), (cell(detail.policy_digest), ""))
    try:
        operation = Operation(detail.row.operation)
    except ValueError:
        operation = Operation.OTHER
    if detail.sent_body is not None:
        add_diff(document, "request", "as it came → as it was sent",
              diff_request(operation, detail.request_body, detail.sent_body), width)  # fmt: skip
    if detail.upstream_body is not None:
        add_diff(document, "response", "as the upstream gave it → as the client got it",
              diff_response(operation, detail.upstream_body, detail.response_body), width)  # fmt: skip
    return document


def _head(document: PieceDocument, width: int) -> None:
    rest = f"{'reason':<22} {'score':>5} {'took':>6}"
    titles = f"{'policy':<20} {'stage':<9} {'mode':<9} {'ran':<11} {'action':<10}"
    document.line((f"{titles} {rest}" if width >= WIDE else titles, "quiet"))


def _verdict(document: PieceDocument, verdict: Verdict, width: int) -> None:
    mode = glyphs.MODES.get(verdict.mode, glyphs.Face("?", cell(verdict.mode), "notice"))
    face = glyphs.VERDICTS.get(verdict.action, glyphs.Face("?", cell(verdict.action), "notice"))
    score = figures.UNKNOWN if verdict.score is None else f"{verdict.score:.2f}"
    tone = "quiet" if verdict.action == "allow" or verdict.ran == "skipped" else face.tone
    first: list[Piece] = [
        (f"{_cut(cell(verdict.policy), 20)} ", "strong"),
        (f"{verdict.stage.value:<9} ", "quiet"),
        (f"{mode.sign} {mode.word:<7} ", mode.tone if verdict.mode != "enforce" else ""),
        (f"{cell(verdict.ran):<11} ", _RAN_TONES.get(verdict.ran, "notice")),
        (f"{f'{face.sign} {face.word}':<10}", tone),
    ]
    rest: list[Piece] = [
        (f"{_cut(verdict.reason.value, 22)} ", ""),
        (f"{score:>5} ", "quiet" if verdict.score is None else ""),
        (f"{figures.duration(verdict.ms):>6}", "quiet"),
    ]
    if width >= WIDE:
        document.line(*first, (" ", ""), *rest)
    else:
        document.line(*first)
        document.line((" " * INDENT, ""), *rest)
    if verdict.message:
        document.block(verdict.message, width, head=("", ""), indent=INDENT, tone="")
    if verdict.detail:
        said = " · ".join(f"{cell(str(key))} {cell(str(value))[:200]}" for key, value in verdict.detail.items())
        document.block(said, width, head=("", ""), indent=INDENT, tone="quiet")


def _cut(text: str, width: int) -> str:
    return text[: width - 1] + "…" if len(text) > width else text.ljust(width)


def add_diff(document: PieceDocument, name: str, forms: str, diff: Diff, width: int) -> None:
    """What differs between two forms, under a heading that names them."""
    document.line(("", ""))
    document.line((f"{name}  ", "accent"), (forms, "quiet"))
    if not diff:
        document.line(("the same in all that matters; only the bytes differ", "quiet"))
    for change in diff.changes:
        _change(document, change, width)
    if diff.truncated:
        document.line(("… and more that differs", "warning"))


def _change(document: PieceDocument, change: Change, width: int) -> None:
    sign, tone = _SIGNS.get(change.kind, ("?", "notice"))
    cut = "  (the part that differs)" if change.cut else ""
    document.line((f"{sign} ", tone), (cell(change.path), "name"), (cut, "quiet"))
    for value, side, side_tone in ((change.before, "- ", "error"), (change.after, "+ ", "ok")):
        if value is None:
            continue
        for line in value.split("\n"):
            for place, part in enumerate(wrap(cell(line), max(8, width - INDENT - 2))):
                document.line((" " * INDENT + (side if place == 0 else "  "), side_tone), (part, ""))
                document.continued[-1] = place > 0
