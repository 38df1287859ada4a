"""A built-in upstream and agents that work through the gateway, for a look around without a key."""

from __future__ import annotations

from luthien_tui.demo.agents import run_agents
from luthien_tui.demo.control import demo_policies
from luthien_tui.demo.upstream import DemoUpstream
from proxy_core.settings import UpstreamSettings

__all__ = ["DemoUpstream", "demo_policies", "demo_upstreams", "run_agents"]


def demo_upstreams(base_url: str) -> dict[str, UpstreamSettings]:
    """The three providers of the default configuration, all played by the demo's upstream at `base_url`."""
    return {
        "openai": UpstreamSettings(api="openai", base_url=base_url),
        "anthropic": UpstreamSettings(api="anthropic", base_url=base_url),
        "ollama": UpstreamSettings(api="ollama", base_url=base_url),
    }
