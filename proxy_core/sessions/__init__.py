"""Who is talking: sessions, agents, token usage and cost."""
