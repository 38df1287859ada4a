"""Tests of proxy_core.journal."""
