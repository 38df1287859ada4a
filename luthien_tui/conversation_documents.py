"""A session as a person reads it: turn by turn, calls of tools in one line each, policies' marks at the place they acted.

Each turn is a section of rows that is built for itself, so that opening a call or a new turn builds only that one. Rows know
what they belong to. Text of the traffic stands behind two columns that it cannot draw on: the margin of the marks, and the
column of the speakers. Everything may run in a thread.
"""

from __future__ import annotations

from rich.cells import cell_len

from luthien_tui import figures, glyphs
from luthien_tui.documents import Document, Piece, lay_out_json, lex_json
from luthien_tui.sections import INDENT, MARGIN, NOTHING, Anchor, Section, Setting
from luthien_tui.text import cell, visible
from luthien_tui.tool_lines import arguments_in_words, result_in_words
from luthien_tui.widgets.paint import fit, pieces_width
from proxy_core.control.session_infos import Mark, SessionInfo, StoryBlock, StoryMessage, ToolUse, Turn
from proxy_core.wire.dialects import Operation

QUESTION_ROWS = 12
"""Rows of what a user says that are shown before it is unfolded."""
ANSWER_ROWS = 40
SYSTEM_ROWS = 2
WIDE = 90
"""Cells from which on a turn's line has all of its facts."""
_KINDS = {"retry": "↻ again", "edit": "✎ edited", "side": "· aside", "tool": "", "turn": ""}


def turn_section(turn: Turn, setting: Setting) -> Section:
    """One turn."""
    return _TurnWriter(turn, setting).write()


def frame_section(system: str, has_earlier: bool, setting: Setting) -> Section:
    """What stands before the first turn: that there are earlier ones, and the system prompt."""
    section = Section()
    if has_earlier:
        section.row(Anchor("earlier"), ("… earlier turns are not here", "quiet"), ("  enter", "key"), (" brings them", "quiet"))
        section.row(Anchor("earlier"), ("", ""))
    if system:
        anchor = Anchor("fold", 0, "system")
        section.text(setting, anchor, system, ("system", "quiet"), tone="quiet", most=SYSTEM_ROWS)
        section.row(Anchor("turn"), ("", ""))
    return section


class _TurnWriter:
    def __init__(self, turn: Turn, setting: Setting) -> None:
        self.turn = turn
        self.setting = setting
        self.section = Section()
        self.here = Anchor("turn", turn.number)

    def write(self) -> Section:
        turn = self.turn
        key = f"{turn.number}"
        is_open = self.setting.folding.is_open(key, usually=turn.kind != "side")
        self._head(Anchor("fold", turn.number, key), is_open)
        if not is_open:
            return self.section
        for mark in turn.marks:
            if mark.where == "request":
                self._mark(mark)
        if turn.dropped:
            self._note(f"{turn.dropped:,} earlier message{'s' if turn.dropped > 1 else ''} dropped from the history")
        if turn.said_omitted:
            self._note(f"… {turn.said_omitted:,} new messages before these are left out")
        for place, message in enumerate(turn.said):
            self._message(place, message)
        self._answer()
        if turn.row.error:
            self._plain(turn.row.error, ("error", "error"), "error")
        elif turn.problem:
            self._plain(turn.problem, ("problem", "warning"), "warning")
        for child in turn.children:
            self._session(child)
        self.section.row(self.here, ("", ""))
        return self.section

    # --- the turn's own line -------------------------------------------------------------------------------------

    def _head(self, anchor: Anchor, is_open: bool) -> None:
        turn, row, width = self.turn, self.turn.row, self.setting.width
        face = glyphs.face(row)
        is_new = turn.kind in ("turn", "edit")
        line: list[Piece] = [("━━ " if is_new else "── ", "accent" if is_new else "bar-rest"), (f"{turn.number}", "strong")]
        if word := "counts tokens" if row.operation == Operation.COUNT_TOKENS.value else _KINDS.get(turn.kind, cell(turn.kind)):
            line.append((f" {word}", "notice"))
        facts: list[Piece] = [(f"  {figures.clock(row.started_at)}", "quiet")]
        if width >= WIDE:
            facts.append((f"  {cell(row.model) or figures.UNKNOWN}", "quiet"))
        estimated = "~" if row.estimated else ""
        tokens = f"  {estimated}{figures.count(row.input_tokens)}→{figures.count(row.output_tokens)}"
        facts += [(tokens, ""), (f"  {figures.usd(row.cost_usd)}", ""), (f"  {figures.duration(row.total_ms)}", "")]
        facts.append((f"  {face.sign} {face.word} ", face.tone))
        room = width - pieces_width(line) - pieces_width(facts) - 1
        if not is_open and room > 8:
            about = fit(cell(row.preview), min(40, room - 4)).rstrip() or "folded"
            line.append((f" {about}", "quiet"))
            room -= pieces_width(line[-1:])
        rule = "━" if is_new else "─"
        self.section.row(anchor, *line, (" " + rule * max(0, room), "accent" if is_new else "bar-rest"), *facts)

    # --- what was said -------------------------------------------------------------------------------------------

    def _message(self, place: int, message: StoryMessage) -> None:
        role = cell(message.role)
        tone = {"user": "accent", "assistant": "ok"}.get(message.role, "quiet")
        most = SYSTEM_ROWS if message.role in ("system", "developer") else QUESTION_ROWS
        head = role[: INDENT - MARGIN - 1]
        for number, block in enumerate(message.blocks):
            key = f"{self.turn.number}.s{place}.{number}"
            if block.kind == "tool_result":
                if block.call_id not in self.setting.told_calls:
                    self._lone_result(key, block)
            elif block.kind == "tool_call":
                self._lone_call(key, block)
            else:
                self._block(key, block, (head, tone), most, "quiet" if tone == "quiet" else "")
                head = ""

    def _answer(self) -> None:
        uses = {use.block: use for use in self.turn.tool_uses}
        for number, block in enumerate(self.turn.answer):
            key = f"{self.turn.number}.a{number}"
            marks = [mark for mark in self.turn.marks if _is_at(mark, number, block)]
            if number in uses:
                self._use(key, uses[number], marks)
            elif block.kind == "tool_call":
                self._lone_call(key, block)
            else:
                self._block(key, block, ("answer", "ok"), ANSWER_ROWS, "", _sign(marks))
            for mark in marks:
                self._mark(mark)
        for mark in self.turn.marks:
            is_told = any(_is_at(mark, number, block) for number, block in enumerate(self.turn.answer))
            if mark.where != "request" and not is_told:
                self._mark(mark)

    def _block(self, key: str, block: StoryBlock, head: Piece, most: int, tone: str, sign: Piece = NOTHING) -> None:
        anchor = Anchor("fold", self.turn.number, key)
        if block.kind in ("text", "thinking"):
            if block.kind == "thinking":
                head, most, tone = ("thinking", "quiet"), 1, "quiet"
            self.section.text(self.setting, anchor, block.text, head, tone=tone, most=most, sign=sign, omitted=block.omitted)
        else:
            what = " ".join(part for part in (block.kind if block.kind == "image" else "", block.name, block.text) if part)
            self._plain(f"[{what[:200] or block.kind}]", head, "quiet", sign)

    # --- tools ---------------------------------------------------------------------------------------------------

    def _use(self, key: str, use: ToolUse, marks: list[Mark]) -> None:
        """A call in one line with what came back, or all of both."""
        anchor = Anchor("fold", self.turn.number, key)
        is_open = self.setting.folding.is_open(key)
        ended: list[Piece]
        if use.result is not None:
            words, failed = result_in_words(use.result, is_error=use.is_error)
            ended = [(f"✗ {words}", "error")] if failed else [(words, "ok" if words == "exit 0" else "")]
        elif self.turn.row.state != "done":
            ended = [("…", "busy")]
        else:
            ended = [("no result", "quiet")]
        took = f" ({figures.duration(use.duration_s * 1_000)})" if use.duration_s is not None else ""
        self._line_of_call(anchor, use.name, use.arguments, is_open, _sign(marks), ended, took)
        if is_open:
            self._data(anchor, "arguments", use.arguments)
            if use.result is not None:
                self._data(anchor, "✗ result" if use.is_error else "result", use.result)
            if use.omitted:
                self._note(f"… {use.omitted:,} more characters are in the transaction (t)")
        if use.session_id:
            self._session(use.session_id)

    def _lone_call(self, key: str, block: StoryBlock) -> None:
        anchor = Anchor("fold", self.turn.number, key)
        is_open = self.setting.folding.is_open(key)
        self._line_of_call(anchor, block.name, block.text, is_open, NOTHING, [], "")
        if is_open:
            self._data(anchor, "arguments", block.text)

    def _lone_result(self, key: str, block: StoryBlock) -> None:
        """A result whose call is not among the turns that are here."""
        anchor = Anchor("fold", self.turn.number, key)
        is_open = self.setting.folding.is_open(key)
        words, failed = result_in_words(block.text, is_error=block.is_error)
        head: Piece = ("◂ result" if not is_open else "▾ result", "notice")
        room = self.setting.width - INDENT
        shown = f"{cell(block.name)}  {words}" if block.name else words
        self.section.beside(anchor, head, (fit(shown, room).rstrip(), "error" if failed else "quiet"))
        if is_open:
            self._data(anchor, "result", block.text)

    def _line_of_call(
        self, anchor: Anchor, name: str, arguments: str, is_open: bool, sign: Piece, ended: list[Piece], took: str
    ) -> None:
        head = f"{'▾' if is_open else '▸'} {cell(name)[:40] or '?'} "
        room = self.setting.width - max(INDENT, MARGIN + cell_len(head)) - len(took)
        said = arguments_in_words(arguments)
        tail: list[Piece] = []
        if ended:
            text, tone = ended[0]
            least = min(cell_len(text), max(12, room // 2 - 3))
            most = max(least, room - 3 - cell_len(said))
            tail = [(" → ", "quiet"), (fit(text, min(most, cell_len(text))), tone)]
        said = fit(said, max(4, room - pieces_width(tail))).rstrip()
        self.section.beside(anchor, (head, "name"), (said, ""), *tail, (took, "quiet"), sign=sign)

    def _data(self, anchor: Anchor, title: str, text: str) -> None:
        """Arguments or a result, whole; JSON laid out."""
        width = max(8, self.setting.width - INDENT - 2)
        self.section.beside(anchor, NOTHING, (title, "quiet"))
        is_json = text.lstrip()[:1] in ("{", "[")
        lines = (
            (visible(line).replace("\n", "␊") for line in lay_out_json(text))
            if is_json
            else iter(visible(text.rstrip("\n")).split("\n"))
        )
        for line in lines:
            laid = Document()
            laid.add(line, width)
            for place, part in enumerate(laid.texts):
                pieces = lex_json(part, laid.continued[place]) if is_json else [(part, "")]
                self.section.row(anchor, (" " * INDENT + "┆ ", "gutter"), *pieces, continues=place > 0)

    # --- marks, sub-sessions, notes ------------------------------------------------------------------------------

    def _mark(self, mark: Mark) -> None:
        """What a policy said, with its sign in the margin."""
        verdict = mark.verdict
        face = glyphs.VERDICTS.get(verdict.action, glyphs.Face("?", cell(verdict.action), "notice"))
        if verdict.ran not in ("ran", "partial"):
            face = glyphs.Face("✗" if verdict.ran == "error" else "?", cell(verdict.ran), "warning")
        shadow = verdict.mode == "shadow"
        said: list[Piece] = [(f"{cell(verdict.policy)} ", "name")]
        said.append((f"{'in shadow, would be ' if shadow else ''}{face.word}", "quiet" if shadow else face.tone))
        score = f" {verdict.score:.2f}" if verdict.score is not None else ""
        said.append((f" {cell(verdict.reason.value)}{score}", "quiet"))
        sign: Piece = ("◐" if shadow else face.sign, "quiet" if shadow else face.tone)
        message: Piece = (f"  {cell(verdict.message[:400])}", "")
        room = self.setting.width - INDENT
        fits = pieces_width([*said, message]) <= room
        self.section.beside(self.here, NOTHING, *_cut([*said, message] if fits else said, room), sign=sign)
        if not fits:
            self.section.beside(self.here, NOTHING, *_cut([message], room))

    def _session(self, session_id: str) -> None:
        info = self.setting.sessions.get(session_id)
        said: list[Piece] = [("sub-agent ", "quiet"), (cell(session_id), "accent")]
        if info is not None:
            said += [(f"  {text}", "") for text in session_facts(info)]
        anchor = Anchor("session", self.turn.number, session_id)
        self.section.beside(anchor, ("└─▸", "accent"), *_cut(said, self.setting.width - INDENT))

    def _note(self, text: str) -> None:
        self.section.beside(self.here, NOTHING, (text, "quiet"))

    def _plain(self, text: str, head: Piece, tone: str, sign: Piece = NOTHING) -> None:
        self.section.text(self.setting, self.here, text, head, tone=tone, most=QUESTION_ROWS, sign=sign)


def session_facts(info: SessionInfo) -> list[str]:
    """What is worth knowing of a session beside its name."""
    facts = [cell(info.agent)] if info.agent else []
    facts.append(f"{info.turns:,} turn{'' if info.turns == 1 else 's'}")
    facts += [f"{figures.count(info.totals.tokens)} tok", figures.usd(info.totals.cost_usd)]
    if info.totals.errors:
        facts.append(f"✗ {info.totals.errors:,} error{'' if info.totals.errors == 1 else 's'}")
    return facts


def _is_at(mark: Mark, number: int, block: StoryBlock) -> bool:
    """Whether a mark is about this block of the answer."""
    if mark.where == "call" and mark.call_id and block.kind == "tool_call" and block.call_id:
        return mark.call_id == block.call_id
    return mark.where != "request" and mark.block == number


def _sign(marks: list[Mark]) -> Piece:
    """The gravest of these marks; what only stood by is told in its own row."""
    acted = [mark.verdict for mark in marks if mark.verdict.mode == "enforce"]
    if not acted:
        return NOTHING
    worst = max(acted, key=lambda verdict: list(glyphs.VERDICTS).index(verdict.action))
    face = glyphs.VERDICTS[worst.action]
    return face.sign, face.tone


def _cut(pieces: list[Piece], width: int) -> list[Piece]:
    cut: list[Piece] = []
    for text, tone in pieces:
        if pieces_width(cut) + pieces_width([(text, tone)]) > width:
            cut.append((fit(text, max(0, width - pieces_width(cut))), tone))
            break
        cut.append((text, tone))
    return cut
