"""The comparison of costs agrees with a table of equal prices, tells other prices apart, and finds a sum that is wrong."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evals.costs import LitellmPrices, OwnTable, comparable, litellm_cost, run, summary
from evals.recorded import load
from proxy_core.sessions.prices import PriceBook
from tests.evals.test_fidelity import row, write

USAGE = {"prompt_tokens": 1_000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}}
GPT = {"input_cost_per_token": 1.5e-7, "output_cost_per_token": 6e-7, "cache_read_input_token_cost": 7.5e-8}
CLAUDE = {"input_cost_per_token": 9e-6, "output_cost_per_token": 5e-6}


def answer(model: str, **usage: Any) -> bytes:
    return json.dumps({"id": "1", "model": model, "choices": [], "content": [], "type": "message", "usage": usage}).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    claude = answer("claude-haiku-4-5", input_tokens=10, output_tokens=2)
    rows = [
        row("/v1/chat/completions", answer("gpt-4o-mini", **USAGE), host="api.openai.com"),
        row("/v1/messages", claude, api="anthropic-messages", host="api.anthropic.com"),
        row("/v1/chat/completions", answer("no-such-model", **USAGE), host="api.openai.com"),
        row("/v1/chat/completions", answer("gpt-4o-mini"), host="api.openai.com"),
    ]
    write(tmp_path, rows)
    (tmp_path / "prices.json").write_text(json.dumps({"gpt-4o-mini": GPT, "claude-haiku-4-5": CLAUDE}))
    return tmp_path


async def test_equal_prices_give_equal_sums_and_other_prices_are_told_apart(folder: Path) -> None:
    told = summary(await run(folder, LitellmPrices(folder / "prices.json")))
    assert (told["rows"], told["disputed"], told["wrong"]) == (1, 1, [])
    assert told["recorded_usd"] == pytest.approx(told["expected_usd"]) == pytest.approx((600 * 0.15 + 400 * 0.075 + 60) / 1e6)
    assert told["unknown"] == {"api.openai.com no-such-model: no price in both": 1}
    both = summary(await run(folder, OwnTable()))
    assert (both["rows"], both["disputed"], both["wrong"]) == (2, 0, [])


async def test_a_wrong_sum_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = PriceBook.cost_usd
    monkeypatch.setattr(PriceBook, "cost_usd", lambda *given, **more: (right(*given, **more) or 0.0) + 1e-6)
    assert len(summary(await run(folder, LitellmPrices(folder / "prices.json")))["wrong"]) == 1


def test_only_whole_answers_that_tell_their_usage_are_compared(folder: Path) -> None:
    assert [comparable(one) is not None for one in load(folder, Counter())] == [True, True, True, False]


def test_each_kind_of_token_has_its_price() -> None:
    rates = {
        "input_cost_per_token": 1.0,
        "input_cost_per_token_above_200k_tokens": 2.0,
        "output_cost_per_token": 10.0,
        "output_cost_per_audio_token": 30.0,
        "cache_read_input_token_cost": 0.1,
        "cache_creation_input_token_cost": 1.25,
        "cache_creation_input_token_cost_above_1hr": 2.5,
        "search_context_cost_per_query": {"search_context_size_medium": 7.0},
    }
    usage = {"input": 100, "cached": 10, "written": 20, "written 1h": 5, "output": 3, "audio out": 1, "searches": 1}
    assert litellm_cost(rates, usage) == pytest.approx(70 + 1 + 15 * 1.25 + 5 * 2.5 + 20 + 30 + 7)
    assert litellm_cost(rates, {"input": 200_001}) == 400_002
