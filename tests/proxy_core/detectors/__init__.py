"""Tests of proxy_core.detectors."""
