"""Recorded traffic through the gateway again: read recordings, replay them offline or live, and say what came out differently."""
