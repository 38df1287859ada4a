"""Costs equal those of the price table's own arithmetic, own prices come first, and what is unknown stays unknown."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import genai_prices
import pytest
from pydantic import ValidationError

from proxy_core.routing.upstreams import Upstream, Upstreams
from proxy_core.sessions.prices import PriceBook
from proxy_core.settings import PricesSettings, Settings
from proxy_core.wire.conversation import Usage

UPSTREAMS = {
    "openai": {"api": "openai", "base_url": "https://api.openai.com"},
    "anthropic": {"api": "anthropic", "base_url": "https://api.anthropic.com"},
    "perplexity": {"api": "openai", "base_url": "https://api.perplexity.ai"},
    "own": {"api": "openai", "base_url": "http://127.0.0.1:8000"},
    "ollama": {"api": "ollama", "base_url": "http://127.0.0.1:11434"},
}
AT: dict[str, Upstream] = Upstreams(Settings.model_validate({"upstreams": UPSTREAMS})).by_name
OPENAI, ANTHROPIC = AT["openai"], AT["anthropic"]


@pytest.fixture
async def prices() -> PriceBook:
    book = PriceBook(lambda: 0.0)
    await book.load()
    return book


async def with_own(**own: Any) -> PriceBook:
    book = PriceBook(lambda: 0.0, PricesSettings.model_validate(own))
    await book.load()
    return book


@pytest.mark.parametrize(
    ("upstream", "model"),
    [
        (OPENAI, "gpt-4o-mini"),
        (OPENAI, "gpt-5.4"),
        (OPENAI, "o3"),
        (ANTHROPIC, "claude-sonnet-4-5"),
        (ANTHROPIC, "claude-haiku-4-5"),
    ],
)
async def test_costs_are_those_of_the_table(prices: PriceBook, upstream: Upstream, model: str) -> None:
    for tokens, cached, written, output in itertools.product((1_000, 200_000, 200_001, 300_000), (0, 400), (0, 100), (0, 77)):
        usage = genai_prices.Usage(
            input_tokens=tokens, output_tokens=output, cache_read_tokens=cached, cache_write_tokens=written
        )
        expected = genai_prices.calc_price(usage, model, provider_api_url=upstream.base_url).total_price
        found = prices.cost_usd(upstream, model, Usage(tokens, output, cached, written))
        assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("upstream", "model", "usage", "usd"),
    [
        (ANTHROPIC, "claude-haiku-4-5", Usage(1_000, 0, 0, 600, None, 400), (400 * 1 + 200 * 1.25 + 400 * 2) / 1e6),
        (ANTHROPIC, "claude-haiku-4-5", Usage(1_000, 10, web_searches=3), (1_000 * 1 + 10 * 5) / 1e6 + 3 * 10 / 1e3),
        (ANTHROPIC, "claude-haiku-4-5", Usage(1_000, 0, elsewhere=(("claude-opus-4-5", Usage(10, 2)),)), (1_000 + 50 + 50) / 1e6),
        (AT["perplexity"], "sonar", Usage(1_000, 1_000), 2_000 / 1e6 + 12 / 1e3),
        (OPENAI, "gpt-4o-mini", Usage(1_000, 100, reasoning_tokens=50, input_audio_tokens=9), (150 + 60) / 1e6),
    ],
)
async def test_what_has_a_rate_of_its_own(prices: PriceBook, upstream: Upstream, model: str, usage: Usage, usd: float) -> None:
    assert prices.cost_usd(upstream, model, usage) == pytest.approx(usd, rel=1e-9)


async def test_behind_another_address_the_models_name_decides(prices: PriceBook) -> None:
    usage = Usage(1_000, 10)
    assert prices.cost_usd(AT["own"], "gpt-4o-mini", usage) == prices.cost_usd(OPENAI, "gpt-4o-mini", usage)


async def test_the_model_that_answered_counts_where_its_price_is_known(prices: PriceBook) -> None:
    usage = Usage(1_000, 10)
    mini = prices.cost_usd(OPENAI, "gpt-4o-mini", usage)
    assert prices.cost_usd(OPENAI, "my-deployment", usage, answered="gpt-4o-mini-2024-07-18") == mini
    assert prices.cost_usd(OPENAI, "gpt-4o-mini", usage, answered="/weights/x.gguf") == mini


@pytest.mark.parametrize(("model", "usage"), [("no-such-model", Usage(1, 1)), ("", Usage(1, 1)), ("gpt-4o-mini", Usage(None, 5))])
async def test_the_unknown_has_no_price(prices: PriceBook, model: str, usage: Usage) -> None:
    assert prices.cost_usd(OPENAI, model, usage) is None


async def test_a_sum_of_which_a_part_is_unknown_is_unknown(prices: PriceBook) -> None:
    usage = Usage(1, 1, elsewhere=(("no-such-model", Usage(1, 1)),))
    assert prices.cost_usd(OPENAI, "gpt-4o-mini", usage) is None


async def test_another_tier_has_no_list_price(prices: PriceBook) -> None:
    usage = Usage(1_000_000, 0, tier="flex")
    assert prices.cost_usd(OPENAI, "gpt-5", usage) is None
    book = await with_own(models={"gpt-5": {"input": 1, "output": 1}})
    assert book.cost_usd(OPENAI, "gpt-5", usage) == 1


async def test_what_runs_at_home_has_no_list_price(prices: PriceBook) -> None:
    assert prices.cost_usd(AT["ollama"], "llama3.2", Usage(1, 1)) is None
    assert prices.cost_usd(AT["ollama"], "gpt-4o-mini", Usage(1, 1)) is None


async def test_names_that_no_model_has_take_no_room(prices: PriceBook) -> None:
    tracemalloc.start()
    for number in range(100):
        assert prices.cost_usd(OPENAI, f"{number}{'m' * 100_000}", Usage(1, 1), answered=f"{number}{'n' * 100_000}") is None
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 1_000_000


def test_before_the_table_is_there_nothing_has_a_price() -> None:
    assert PriceBook(lambda: 0.0).cost_usd(OPENAI, "gpt-4o-mini", Usage(1, 1)) is None


async def test_own_prices_come_first() -> None:
    book = await with_own(
        models={"gpt-4o*": {"input": 1, "output": 2, "cache_read": 0.5, "cache_write": 4}, "alias": {"input": 3, "output": 3}},
        upstreams={
            "ollama": {"models": {"*": {"input": 0, "output": 0}}},
            "own": {"models": {"gpt-4o": {"input": 9, "output": 9}}},
        },
    )
    million = 1_000_000
    assert book.cost_usd(OPENAI, "gpt-4o-2024-08-06", Usage(million, million)) == 3
    assert book.cost_usd(OPENAI, "gpt-4o", Usage(3 * million, 0, million, million)) == 5.5
    assert book.cost_usd(OPENAI, "alias", Usage(million, 0), answered="o3") == 3
    assert book.cost_usd(AT["own"], "gpt-4o", Usage(million, 0)) == 9
    assert book.cost_usd(AT["own"], "gpt-4o-mini", Usage(million, 0)) == 1
    assert book.cost_usd(AT["ollama"], "gpt-4o", Usage(million, 5)) == 0
    listed = book.cost_usd(OPENAI, "o3", Usage(million, 0))
    book.use(PricesSettings())
    assert book.cost_usd(OPENAI, "o3", Usage(million, 0)) == listed
    assert book.cost_usd(AT["ollama"], "gpt-4o", Usage(million, 5)) is None


@pytest.mark.parametrize(
    ("prices", "says"),
    [
        ({"models": {"m": {"input": 1}}}, "output"),
        ({"models": {"m": {"input": -1, "output": 0}}}, "greater than or equal to 0"),
        ({"models": {"m": {"input": "nan", "output": 0}}}, "finite|greater"),
        ({"models": {"m": {"input": 1, "output": 0, "cached": 1}}}, "Extra inputs"),
        ({"upstreams": {"olama": {}}}, "did you mean 'ollama'"),
        ({"chars_per_token": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_are_refused(prices: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings.model_validate({"prices": prices})
