"""The policies of the demo: one that acts, one in shadow, and one that asks the visitor, but goes on by itself."""

from __future__ import annotations

from proxy_core.settings import PolicySettings

HOLD_S = 45.0
"""How long the demo waits for its visitor, in seconds."""
HELD = "tool:refund or tool:edit_file args:migrations or tool:shell args:curl"
"""The calls of the stories that a person might want to see first."""


def demo_policies(hold_s: float = HOLD_S) -> list[PolicySettings]:
    """A chain that shows every kind of policy at work without keeping the agents waiting for ever."""
    return [
        PolicySettings(use="strip_secrets"),
        PolicySettings(use="send_backend_request"),
        PolicySettings(use="block_dangerous_commands", mode="shadow"),
        PolicySettings(
            use="hold_for_approval",
            params={"filter": HELD, "timeout_s": hold_s, "on_timeout": "approve", "message": "the visitor of the demo said no"},
        ),
    ]
