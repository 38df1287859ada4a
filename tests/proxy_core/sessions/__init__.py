"""Tests of proxy_core.sessions."""
