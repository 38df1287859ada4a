"""An open session and how it is looked at: what is unfolded, and the section of each turn as it was built."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from luthien_tui.conversation_documents import frame_section, turn_section
from luthien_tui.open_session import OpenSession
from luthien_tui.sections import Anchor, Folding, Section, Setting
from proxy_core.control.session_infos import Turn

WORK_S = 0.002
PAUSE_S = 0.001


@dataclass
class ShownSession:
    """An open session and how it is looked at."""

    session: OpenSession
    folding: Folding = field(default_factory=Folding)
    searched: Folding | None = None
    """What is unfolded while a text is looked for, at first everything; None while none is."""
    sections: dict[int, Section] = field(default_factory=dict)
    """By turn number; a turn that is to be built anew is not in it."""
    version: int = 0
    """Grows whenever a section is dropped: what was being built then is stale."""
    seen: int = 0
    """What had happened in it when it was asked for."""
    is_begun: bool = False
    place: int | None = None
    """The row to begin at: where the cursor was when another session was opened over it."""

    @property
    def unfolded(self) -> Folding:
        """What is unfolded now."""
        return self.folding if self.searched is None else self.searched

    def unfold(self, folding: Folding) -> None:
        """Unfold this."""
        if self.searched is None:
            self.folding = folding
        else:
            self.searched = folding

    def search(self, *, begins: bool, here: Anchor) -> None:
        """Unfold everything for a search; after it, fold all but what is under the cursor again."""
        self.searched = Folding(all_open=True) if begins else None
        is_in_turn = here.kind == "fold" and here.key != str(here.turn)
        if not begins and is_in_turn and not self.folding.is_open(here.key):
            self.folding = self.folding.toggle(here.key)
        self.drop()

    def drop(self, numbers: Collection[int] | None = None) -> None:
        """Build these turns anew, or all of them."""
        self.version += 1
        if numbers is None:
            self.sections.clear()
        else:
            for number in numbers:
                self.sections.pop(number, None)

    @property
    def missing(self) -> list[Turn]:
        """The turns that are to be built."""
        return [turn for turn in self.session.turns if turn.number not in self.sections]

    def setting(self, width: int) -> Setting:
        told = {use.call_id for turn in self.session.turns for use in turn.tool_uses}
        return Setting(width, self.unfolded, told, self.session.children)

    def whole(self, width: int) -> Section:
        """The conversation, of sections that are all there."""
        whole = frame_section(self.session.system, self.session.has_earlier, self.setting(width))
        for turn in self.session.turns:
            whole.extend(self.sections[turn.number])
        whole.trim()
        return whole

    def drop_parents(self) -> None:
        """Build the turns anew that started sub-sessions: something is other about those."""
        starts = [turn for turn in self.session.turns if turn.children or any(use.session_id for use in turn.tool_uses)]
        self.drop([turn.number for turn in starts])


def write_sections(turns: Sequence[Turn], setting: Setting) -> dict[int, Section]:
    """The section of each turn, by its number."""
    return {turn.number: turn_section(turn, setting) for turn in turns}


def write_aside(turns: Sequence[Turn], setting: Setting) -> dict[int, Section]:
    """The same, in a thread: with pauses, so that the loop need not wait for the interpreter."""
    found: dict[int, Section] = {}
    paused = time.perf_counter()
    for turn in turns:
        found[turn.number] = turn_section(turn, setting)
        if time.perf_counter() - paused > WORK_S:
            time.sleep(PAUSE_S)
            paused = time.perf_counter()
    return found


def length(turn: Turn) -> int:
    """About how many characters a turn has."""
    blocks = [*turn.answer, *(block for message in turn.said for block in message.blocks)]
    return 200 + sum(len(block.text) for block in blocks) + sum(len(use.result or "") for use in turn.tool_uses)
