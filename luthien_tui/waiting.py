"""What waits for the operator, as the screen knows it: asked for when the feed says that it changed, and then only.

One copy for the badge, the live view and the queue, so that all of them say the same.
"""

from __future__ import annotations

from proxy_core.control.plane import ControlPlane, HoldInfo


class Waiting:
    """The holds of one gateway."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.pending: list[HoldInfo] = []
        """Oldest first."""
        self.decided: list[HoldInfo] = []
        """The latest that were decided, where they were asked for."""
        self.version = 0
        """Grows with each look at the gateway."""
        self._by_transaction: dict[str, HoldInfo] = {}
        self._known: set[str] = set()

    def look(self, *, decided: bool) -> list[HoldInfo]:
        """Ask the gateway; returns those that wait and were not known to."""
        found = self.plane.holds(decided=decided)
        self.pending = [hold for hold in found if hold.status == "pending"]
        self.decided = [hold for hold in found if hold.status != "pending"]
        self._by_transaction = {hold.transaction_id: hold for hold in reversed(self.pending)}
        new = [hold for hold in self.pending if hold.id not in self._known]
        self._known = {hold.id for hold in self.pending}
        self.version += 1
        return new

    def of_transaction(self, transaction_id: str) -> HoldInfo | None:
        """The oldest hold that this transaction waits on."""
        return self._by_transaction.get(transaction_id)

    def find(self, hold_id: str) -> HoldInfo | None:
        return next((hold for hold in (*self.pending, *self.decided) if hold.id == hold_id), None)

    def after(self, hold_id: str) -> HoldInfo | None:
        """What to look at once this one is decided: the next that waits, else the first."""
        ids = [hold.id for hold in self.pending]
        place = ids.index(hold_id) if hold_id in ids else -1
        others = [hold for hold in self.pending[place + 1 :] if hold.id != hold_id]
        others += [hold for hold in self.pending[: max(0, place)] if hold.id != hold_id]
        return others[0] if others else None
