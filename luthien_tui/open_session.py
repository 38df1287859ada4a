"""One open session as the screen has it: its turns, brought up to date by asking only for those that may have changed.

At most KEPT turns; the earlier ones are asked for when they are wanted. Nothing here draws.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy_core.control.plane import ControlPlane
from proxy_core.control.session_infos import SessionDetail, SessionInfo, Turn

FIRST = 200
"""Turns that are asked for at once."""
KEPT = 2_000
UNSETTLED_WITHIN = 30
"""So many of the latest turns are asked for again while something of them is missing; a call whose result is older than that
will not get one."""


class OpenSession:
    """Asks one gateway for one session."""

    def __init__(self, plane: ControlPlane, session_id: str) -> None:
        self.plane = plane
        self.id = session_id
        self.info: SessionInfo | None = None
        self.parent: SessionInfo | None = None
        self.children: dict[str, SessionInfo] = {}
        self.system = ""
        self.turns: list[Turn] = []
        """Oldest first."""
        self.has_earlier = False
        self._running: set[int] = set()
        """Numbers of the turns that ran when they were told of; their rows go on changing, so they cannot be asked."""

    @property
    def is_running(self) -> bool:
        """Whether a request of it had no outcome when it was asked for."""
        return bool(self._running)

    async def load(self) -> bool:
        """Ask for the latest turns; False where the gateway does not know the session."""
        detail = await self.plane.session(self.id, limit=FIRST)
        if detail is None:
            return False
        self._take_frame(detail)
        self.system = detail.system
        self.turns = list(detail.turns)
        self._note_running(detail.turns)
        self.has_earlier = detail.before is not None
        return True

    async def update(self) -> list[int]:
        """Ask for what may have changed; gives the numbers of the turns that are other ones now."""
        after = self._settled()
        detail = await self.plane.session(self.id, after=after, limit=FIRST)
        if detail is None:
            return []
        self._take_frame(detail)
        known = {turn.number: turn for turn in self.turns if turn.number > after}
        changed = [turn.number for turn in detail.turns if turn.number in self._running or known.get(turn.number) != turn]
        self._note_running(detail.turns)
        known |= {turn.number: turn for turn in detail.turns}
        self.turns = [turn for turn in self.turns if turn.number <= after] + [known[number] for number in sorted(known)]
        if len(self.turns) > KEPT:
            self.turns = self.turns[-KEPT:]
            self.has_earlier = True
        return changed

    async def load_earlier(self) -> bool:
        """Ask for the turns before the first one; False where there are none, or no room for them."""
        if not self.has_earlier or not self.turns or len(self.turns) >= KEPT:
            return False
        detail = await self.plane.session(self.id, before=self.turns[0].number, limit=FIRST)
        if detail is None:
            return False
        first = self.turns[0].number
        earlier = [turn for turn in detail.turns if turn.number < first]
        self.turns = [*earlier, *self.turns]
        self.system = detail.system or self.system
        self.has_earlier = detail.before is not None
        return bool(earlier)

    def turn(self, number: int) -> Turn | None:
        """The turn of that number."""
        return next((turn for turn in self.turns if turn.number == number), None)

    def before(self, turn: Turn) -> Turn | None:
        """The turn that this one goes on from: the latest before it that stands in the conversation as it does."""
        earlier = [one for one in self.turns if one.number < turn.number and one.row.outcome != "refused"]
        same = [one for one in earlier if (one.kind == "side") == (turn.kind == "side")]
        return same[-1] if same else None

    def _take_frame(self, detail: SessionDetail) -> None:
        self.info, self.parent = detail.info, detail.parent
        self.children = {child.id: child for child in detail.children}

    def _note_running(self, turns: Sequence[Turn]) -> None:
        self._running -= {turn.number for turn in turns}
        self._running |= {turn.number for turn in turns if turn.row.state != "done"}

    def _settled(self) -> int:
        """The number of the last turn before the first that may still change."""
        for turn in self.turns[-UNSETTLED_WITHIN:]:
            if turn.number in self._running or any(use.result is None for use in turn.tool_uses):
                return turn.number - 1
        return self.turns[-1].number if self.turns else 0
