"""Which sessions had traffic lately, as the feed tells: how many there are, and whether one has changed since somebody looked.

A dict entry a session and nothing else, so following the traffic costs the same whoever looks.
"""

from __future__ import annotations

from collections import OrderedDict

ACTIVE_S = 300.0
"""Seconds after its latest request that a session counts as active."""
KEPT = 4_000


class RecentSessions:
    """Told of every record that carries a row."""

    def __init__(self) -> None:
        self.version = 0
        """Grows with everything that happens in any session."""
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """When there was traffic last, and the version then: plain pairs, because each record makes one."""

    def note(self, session_id: str, at: float) -> None:
        """Something happened in this session; `at`: steady seconds."""
        if not session_id:
            return
        self.version += 1
        before = self._seen.get(session_id)
        self._seen[session_id] = (at if before is None or at > before[0] else before[0], self.version)
        self._seen.move_to_end(session_id)
        if len(self._seen) > KEPT:
            self._seen.popitem(last=False)

    def version_of(self, session_id: str) -> int:
        """Changes with whatever happens in this session; 0 where nothing did lately."""
        seen = self._seen.get(session_id)
        return 0 if seen is None else seen[1]

    def active(self, now: float) -> int:
        """How many had traffic within the last ACTIVE_S seconds."""
        return sum(now - at <= ACTIVE_S for at, _ in self._seen.values())
