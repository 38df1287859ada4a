"""Where a request goes: upstreams, the transport to them, and the choice."""
