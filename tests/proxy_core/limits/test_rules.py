"""Which limits hold, what a request may use at most, and how what is left is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.journal.client_keys import KeyLimits
from proxy_core.limits.estimate import Tokens, expected, seen
from proxy_core.limits.rate_headers import Rate, duration, rate_headers
from proxy_core.limits.rules import rules_for
from proxy_core.settings import LimitsSettings
from proxy_core.wire.dialects import Operation


def test_nothing_configured_limits_nothing() -> None:
    assert rules_for(LimitsSettings(), key="ci", own=KeyLimits(), agent="a", upstream="openai") == ()


def test_of_a_key_its_name_beats_what_it_was_made_with_and_that_beats_the_star() -> None:
    settings = LimitsSettings.model_validate(
        {"keys": {"ci": {"rpm": 1}, "*": {"rpm": 3, "tpm": 300, "usd_per_day": 3, "models": ["c*"]}}}
    )
    own = KeyLimits(models=("b*",), rpm=2, tpm=200)
    (rule,) = rules_for(settings, key="ci", own=own, agent="", upstream="openai")
    assert (rule.scope, rule.models, rule.rpm, rule.tpm) == ("key:ci", ("b*",), 1, 200)
    assert (rule.day_nano_usd, rule.month_nano_usd) == (3_000_000_000, None)


def test_agent_and_upstream_have_rules_of_their_own() -> None:
    settings = LimitsSettings.model_validate({"agents": {"*": {"rpm": 5}}, "upstreams": {"openai": {"usd_per_month": 0.5}}})
    scopes = [rule.scope for rule in rules_for(settings, key="", own=None, agent="a:b", upstream="openai")]
    assert scopes == ["agent:a:b", "upstream:openai"]
    assert [rule.scope for rule in rules_for(settings, key="", own=None, agent="", upstream="local")] == []


@pytest.mark.parametrize(
    ("model", "allowed"),
    [
        ("gpt-4o-mini", True),
        ("gpt-4o", False),
        ("claude-sonnet-4-5", True),
        ("my-claude-x", False),
        ("", False),
        ("gpt-4o-mini\n", False),
    ],
)
def test_models_are_matched_whole(model: str, allowed: bool) -> None:
    settings = LimitsSettings.model_validate({"keys": {"ci": {"models": ["gpt-4o-mini", "claude-*"]}}})
    (rule,) = rules_for(settings, key="ci", own=None, agent="", upstream="")
    assert rule.allows(model) is allowed


@pytest.mark.parametrize(
    ("asked", "output"),
    [
        ({}, 500),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_output_tokens": 11, "n": 3}, 33),
        ({"options": {"num_predict": 5}}, 5),
        ({"options": {"num_predict": -1}}, 500),
        ({"max_tokens": True}, 500),
        ({"max_tokens": 10**30}, 10_000_000),
        ({"max_tokens": "7", "n": "many", "options": []}, 500),
    ],
)
def test_the_most_that_a_request_may_use(asked: dict[str, object], output: int) -> None:
    body = json.dumps(asked).encode()
    assert expected(Operation.CHAT, body, 500) == Tokens(-(-len(body) // 3), output)


def test_what_is_made_or_read_of_nothing() -> None:
    assert expected(Operation.EMBEDDINGS, b"x" * 30, 500) == Tokens(10, 0)
    assert expected(Operation.OTHER, b"x" * 30_000, 500) == Tokens(0, 0)
    image = json.dumps({"max_tokens": 5, "image": "A" * 300_000}).encode()
    assert expected(Operation.CHAT, image, 500).input < 2_100


@given(body=st.binary(max_size=200))
def test_any_body_has_an_estimate(body: bytes) -> None:
    assert expected(Operation.CHAT, body, 500).total >= 500 or b"max" in body or b"num" in body


def test_a_stream_that_broke_off_has_used_what_came() -> None:
    before = Tokens(100, 50)
    assert seen(before, 0, stream=True) == Tokens(100, 0)
    assert seen(before, 500, stream=True) == Tokens(100, 10)
    assert seen(before, 10**9, stream=True) == before


def test_the_tightest_limit_is_told_and_the_upstreams_headers_stay() -> None:
    rates = [Rate("requests", 60, 12.7, 47.3), Rate("requests", 10, 3, 420), Rate("tokens", 1_000, -5, 0.12)]
    told = rate_headers(rates, [])
    assert (b"x-ratelimit-limit-requests", b"10") in told
    assert (b"x-ratelimit-remaining-requests", b"3") in told
    assert (b"x-ratelimit-reset-requests", b"7m0s") in told
    assert (b"x-ratelimit-remaining-tokens", b"0") in told
    assert (b"x-ratelimit-reset-tokens", b"120ms") in told
    beside = rate_headers(rates, [(b"x-ratelimit-limit-requests", b"5000")])
    assert {name[:20] for name, _ in beside} == {b"x-luthien-ratelimit-"}
    assert rate_headers([], []) == []
    assert duration(59.9995) == "1m0s"
