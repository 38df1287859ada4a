"""Changes of what the gateway is set to, as front ends see them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class ChangeInfo(Struct, kw_only=True):
    """Something that was set otherwise while the gateway ran, or found set otherwise at its start."""

    sequence: int
    """Grows with each change."""
    at: float
    """Unix time in seconds."""
    who: str
    """Whose name the operator gave; `luthien` where nobody asked for it."""
    source: str
    """`api`, `ui`, `operator`, `file` or `start`."""
    what: str
    """Name of the policy, or of the section: `routing`, `holds`, `keys`, `logging`."""
    before: dict[str, Any]
    """As JSON, without secrets."""
    after: dict[str, Any]
    digest_before: str = ""
    """Digest of the chain of policies before the change, of `routing` that of its rules; empty where it is about neither."""
    digest_after: str = ""
