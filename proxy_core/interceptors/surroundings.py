"""What an interceptor may know of the gateway that it stands in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from proxy_core.interceptors import shown_lines


class Surroundings(Struct, frozen=True):
    """Fixed for the life of a gateway."""

    data_dir: Path
    """luthien's own folder; a spool belongs there."""
    own_addresses: tuple[tuple[str, int], ...] = ()
    """Host and port of data plane and control API, to which nothing must be sent."""
    session_idle_s: float = 3_600.0
    """Inactivity after which a session counts as ended."""
    max_sessions: int = 10_000
    show: Callable[[Sequence[str]], int] = shown_lines.show
    """Shows lines to people; returns how many it could not show."""
