"""A session as a person reads it: recorded requests in, turns out. Pure, bounded, and never failing on bad bodies.

Clients send their whole history with every request; a turn has what is new in it. What is new is told against the latest
requests of the session, entry by entry as sent (cache marks aside), so that only new entries are read by a codec. The echo of an
answer that was told already is left out. Results of tools find their calls by id, and in order where the dialect has no ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from proxy_core.control.session_bodies import HISTORY, INSTRUCTING, TEXT_CHARS, Room, answer_of, codec_of, system_text
from proxy_core.control.session_infos import Mark, SessionInfo, StoryBlock, StoryMessage, ToolUse, Turn, TurnKind
from proxy_core.journal.session_reads import RecordedTurn
from proxy_core.routing.reasons import Reason
from proxy_core.verdicts import Stage, Verdict
from proxy_core.wire.codec import Codec
from proxy_core.wire.conversation import (
    Answer,
    Block,
    Message,
    TextBlock,
    ToolCallBlock,
    ToolResultBlock,
)
from proxy_core.wire.dialects import CONVERSING, Operation
from proxy_core.wire.glance import Glance, glance

MESSAGES = 200
STORY_CHARS = 16_000_000
"""Text of all turns together."""
LEAST_CHARS = 4_000
"""Text that every turn may have."""
CONTEXT = 8
"""Earlier requests with which a request is compared: conversations may run side by side in one session."""

_QUOTE = ord(b'"')
_STARTS_AGENTS = ("task", "agent", "delegate", "spawn", "subagent")


class _Point(Struct):
    """A request that later ones are compared with."""

    entries: list[int]
    """A number for each entry of its history; equal ones have the same."""
    said: tuple[str, tuple[str, ...]] | None
    """Text and called tools of its answer."""
    marks: tuple[object, object]


class Story:
    """Tells one session's requests in order. Use it once."""

    def __init__(self, turns: int, *, text_chars: int = TEXT_CHARS) -> None:
        """`turns` is how many share STORY_CHARS."""
        self._limit = max(LEAST_CHARS, STORY_CHARS // max(1, turns))
        self._text_chars = text_chars
        self._points: deque[_Point] = deque(maxlen=CONTEXT)
        self._raw_entries: dict[int, int] = {}
        self._entries: dict[int, int] = {}
        """By Python's own keyed hash, so that no text of a long session is kept."""
        self._open: dict[str, ToolUse] = {}
        """Calls without a result, oldest first; by id, or by a number where there is none."""
        self._ended: dict[str, float] = {}
        """When the transactions of open calls had answered, in Unix seconds."""
        self.system = ""
        """The system prompt of the first turn that had one."""

    def tell(self, recorded: RecordedTurn) -> Turn:
        """The next request as a turn. Results that it brings are written into the calls of earlier turns."""
        row = recorded.row
        turn = Turn(number=recorded.number, kind="side" if row.side or row.operation not in CONVERSING else "turn", row=row)
        codec = codec_of(row.operation)
        if not recorded.bodies_kept:
            turn.problem = "bodies are not kept: journal.capture is 'metadata'"
        elif codec is not None:
            answer = answer_of(codec, recorded)
            self._tell_request(turn, codec, recorded, answer, Room(self._limit, self._text_chars))
            if answer is not None:
                self._tell_answer(turn, recorded, answer, Room(self._limit, self._text_chars))
        turn.marks = tuple(_marks(recorded.verdicts, turn))
        return turn

    def _tell_request(self, turn: Turn, codec: Codec, recorded: RecordedTurn, answer: Answer | None, room: Room) -> None:
        operation = Operation(turn.row.operation)
        seen = glance(recorded.request_body)
        where = HISTORY.get(operation)
        if where is None or seen.problem or not seen.history:
            conversation = codec.read_request(recorded.request_body)
            turn.problem = conversation.problem or ""
            messages, kind = list(conversation.messages), None
        else:
            messages, kind = self._news(turn, codec, operation, seen, where, answer)
        if turn.kind == "side":
            turn.dropped = 0  # it takes nothing back
        elif not self.system:
            self.system = system_text(codec, operation, seen, messages)
        if turn.known == 0:
            while messages and messages[0].role in INSTRUCTING:
                del messages[0]
        if turn.kind != "side":
            turn.kind = kind or _kind(messages)
        turn.said_omitted = max(0, len(messages) - MESSAGES)
        turn.said = tuple(self._message(one, turn, room) for one in messages[-MESSAGES:])

    def _news(
        self, turn: Turn, codec: Codec, operation: Operation, seen: Glance, where: str, answer: Answer | None
    ) -> tuple[list[Message], TurnKind | None]:
        """The messages that were not told yet, and what kind of turn it is where their content does not say it."""
        entries = [self._entry(bytes(one)) for one in seen.history]
        marks = (seen.marks.get("previous_response_id"), seen.marks.get("conversation"))
        opening = next((place for place, one in enumerate(seen.history) if not _instructs(one)), len(entries))
        turn.known, turn.dropped, kind = self._compare(entries, marks, opening)
        new = seen.history[turn.known :]
        if seen.history[0][0] == _QUOTE:  # a text in place of a list
            body = b'{"%b":%b}' % (where.encode(), bytes(seen.history[0]) if new else b'""')
            new = new[:1]
        else:
            body = b'{"%b":[%b]}' % (where.encode(), b",".join(new))
        messages = list(codec.read_request(body).messages) if new else []
        if turn.known or marks != (None, None):
            self._leave_out_echo(turn, messages)
        if turn.kind != "side":
            said = None if answer is None else _spoken(answer.blocks)
            self._points.append(_Point(entries, said, marks))
        return messages, kind

    def _compare(self, entries: list[int], marks: tuple[object, object], opening: int) -> tuple[int, int, TurnKind | None]:
        """How many entries are known, how many are gone, and the kind of turn where that says it. `opening` is the place of the
        first entry that instructs nobody: what has only the instructions in common is another conversation."""
        best: _Point | None = None
        for point in reversed(self._points):
            length = len(point.entries)
            is_longer = best is None or length > len(best.entries)
            if is_longer and point.marks == marks and entries[:length] == point.entries:
                best = point
        if best is not None:
            known = len(best.entries)
            if known == len(entries):
                return known, 0, "retry"
            # What was said after this point already is no part of this request: it branches off there.
            others = [point.entries for point in self._points if len(point.entries) > known]
            ahead = [len(other) - _common(other, entries) for other in others if other[:known] == best.entries]
            dropped = max(ahead, default=0)
            return known, dropped, "edit" if dropped else None
        if marks != (None, None):
            return 0, 0, None
        shared = 0
        for point in reversed(self._points):
            run = _run_to_the_end(point.entries, entries)
            if run is not None:
                return run[0], len(point.entries) - run[1], None
            length = _common(point.entries, entries)
            if length > shared:
                best, shared = point, length
        if best is None or shared <= opening:
            return shared, 0, None
        return shared, len(best.entries) - shared, "edit"

    def _entry(self, raw: bytes) -> int:
        """A number that equal entries share; each is read once, however often it is sent."""
        key = hash(raw)
        number = self._raw_entries.get(key)
        if number is None:
            number = self._raw_entries[key] = self._entries.setdefault(hash(_steady(raw)), len(self._entries))
        return number

    def _leave_out_echo(self, turn: Turn, messages: list[Message]) -> None:
        """The answer before, which a client sends back as part of its history."""
        count = 0
        while count < len(messages) and messages[count].role == "assistant":
            count += 1
        if not count:
            return
        echo = _spoken([block for message in messages[:count] for block in message.blocks])
        if any(point.said == echo for point in self._points):
            del messages[:count]
            turn.known += count

    def _message(self, message: Message, turn: Turn, room: Room) -> StoryMessage:
        blocks: list[StoryBlock] = []
        for block in message.blocks:
            shown = room.block(block)
            if isinstance(block, ToolResultBlock):
                use = self._answered(block, shown, turn)
                shown = msgspec.structs.replace(shown, name=use.name if use is not None else "")
            blocks.append(shown)
        return StoryMessage(role=message.role[:40], blocks=tuple(blocks))

    def _answered(self, block: ToolResultBlock, shown: StoryBlock, turn: Turn) -> ToolUse | None:
        """The open call that a result belongs to, with the result in it."""
        key = block.call_id
        if key not in self._open:  # Ollama names the tool in place of a call, or nothing
            key = next((known for known, use in self._open.items() if key in ("", use.name)), key)
        use = self._open.pop(key, None)
        if use is None:
            return None
        use.result, use.is_error, use.answered_by = shown.text, block.is_error, turn.transaction_id
        use.omitted += shown.omitted
        ended = self._ended.get(use.asked_by)
        if ended is not None:
            use.duration_s = max(0.0, turn.started_at - ended)
        return use

    def _tell_answer(self, turn: Turn, recorded: RecordedTurn, answer: Answer, room: Room) -> None:
        turn.answer = tuple(room.block(block) for block in answer.blocks[:MESSAGES])
        turn.problem = turn.problem or answer.problem or ""
        uses: list[ToolUse] = []
        for place, block in enumerate(turn.answer):
            if block.kind == "tool_call":
                use = ToolUse(
                    call_id=block.call_id,
                    name=block.name,
                    arguments=block.text,
                    block=place,
                    asked_by=turn.transaction_id,
                    omitted=block.omitted,
                )
                uses.append(use)
                self._open[block.call_id or f"#{turn.number}.{place}"] = use
        turn.tool_uses = tuple(uses)
        if uses and recorded.ended_ns is not None:
            self._ended[turn.transaction_id] = recorded.ended_ns / 1e9


def place_children(turns: Sequence[Turn], children: Sequence[SessionInfo]) -> None:
    """Write each sub-session into the call that started it, else into the turn in which it began."""
    started_at = {turn.transaction_id: turn.started_at for turn in turns}
    taken: set[int] = set()
    for child in children:
        open_uses = [
            use
            for turn in turns
            if turn.started_at <= child.started_at
            for use in turn.tool_uses
            if id(use) not in taken and started_at.get(use.answered_by, child.started_at) >= child.started_at
        ]
        opening = child.preview[:60].strip()
        quoted = msgspec.json.encode(opening)[1:-1].decode() if _is_text(opening) else opening
        by_text = [use for use in open_uses if opening and (quoted in use.arguments or opening in use.arguments)]
        by_name = [use for use in open_uses if any(word in use.name.lower() for word in _STARTS_AGENTS)]
        use = by_text[0] if by_text else by_name[0] if by_name else open_uses[0] if len(open_uses) == 1 else None
        if use is not None:
            use.session_id = child.id
            taken.add(id(use))
            continue
        earlier = [turn for turn in turns if turn.started_at <= child.started_at]
        if earlier:
            earlier[-1].children = (*earlier[-1].children, child.id)


def _steady(entry: bytes) -> bytes:
    """An entry of a history, the same wherever the client puts its cache marks."""
    try:
        value = msgspec.json.decode(entry)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return entry
    if isinstance(value, dict):
        value.pop("cache_control", None)
        content = value.get("content")
        if isinstance(content, list):
            for part in content:
                if isinstance(part, dict):
                    part.pop("cache_control", None)
            if len(content) == 1 and isinstance(content[0], dict) and set(content[0]) == {"type", "text"}:
                value["content"] = content[0]["text"]  # as clients write a lone text without a mark
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return entry


def _instructs(entry: memoryview) -> bool:
    head = bytes(entry[:200])
    return b'"system"' in head or b'"developer"' in head


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Entries that both begin with."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length


def _run_to_the_end(known: Sequence[int], entries: Sequence[int]) -> tuple[int, int] | None:
    """Of a history whose beginning was cut off: where the last known entry stands, and how many before it are known too."""
    if not known:
        return None
    for place in range(len(entries) - 1, -1, -1):
        if entries[place] == known[-1]:
            run = 0
            while run <= place and run < len(known) and entries[place - run] == known[-1 - run]:
                run += 1
            if run == place + 1 or run >= 3:
                return place + 1, run
    return None


def _spoken(blocks: Sequence[Block]) -> tuple[str, tuple[str, ...]]:
    text = "".join(block.text for block in blocks if isinstance(block, TextBlock)).strip()
    return text, tuple(block.name for block in blocks if isinstance(block, ToolCallBlock))


def _kind(messages: Sequence[Message]) -> TurnKind:
    blocks = [block for message in messages for block in message.blocks]
    if not any(isinstance(block, ToolResultBlock) for block in blocks):
        return "turn"
    # Clients add reminders of their own beside results; a person has said nothing then.
    texts = [block.text.lstrip() for block in blocks if isinstance(block, TextBlock)]
    return "turn" if any(text and not text.startswith("<system-reminder>") for text in texts) else "tool"


def _marks(verdicts: Sequence[Verdict], turn: Turn) -> Iterator[Mark]:
    places = {use.call_id: use.block for use in turn.tool_uses}
    for verdict in verdicts:
        if verdict.action == "allow" and verdict.ran in ("ran", "skipped") and verdict.reason is not Reason.APPROVED:
            continue
        call_id = verdict.detail.get("call_id", "")
        if verdict.stage is Stage.REQUEST:
            yield Mark(verdict=verdict, where="request")
        elif verdict.stage is Stage.TOOL_CALL and isinstance(call_id, str) and call_id:
            yield Mark(verdict=verdict, where="call", block=places.get(call_id), call_id=call_id)
        else:
            yield Mark(verdict=verdict, where="answer")


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
