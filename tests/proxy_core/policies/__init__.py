"""Tests of proxy_core.policies."""
