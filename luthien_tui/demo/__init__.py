"""A built-in upstream and agents that work through the gateway, for a look around without a key."""
