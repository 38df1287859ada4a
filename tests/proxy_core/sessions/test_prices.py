"""Costs equal those of the price table's own arithmetic, and what is unknown stays unknown."""

from __future__ import annotations

import itertools

import genai_prices
import pytest

from proxy_core.sessions.prices import PriceBook
from proxy_core.wire.conversation import Usage

OPENAI, ANTHROPIC = "https://api.openai.com", "https://api.anthropic.com"


@pytest.fixture
async def prices() -> PriceBook:
    book = PriceBook(lambda: 0.0)
    await book.load()
    return book


@pytest.mark.parametrize(
    ("base_url", "model"),
    [
        (OPENAI, "gpt-4o-mini"),
        (OPENAI, "gpt-5.4"),
        (OPENAI, "o3"),
        (ANTHROPIC, "claude-sonnet-4-5"),
        (ANTHROPIC, "claude-haiku-4-5"),
    ],
)
async def test_costs_are_those_of_the_table(prices: PriceBook, base_url: str, model: str) -> None:
    for tokens, cached, written, output in itertools.product((1_000, 300_000), (0, 400), (0, 100), (0, 77)):
        usage = genai_prices.Usage(
            input_tokens=tokens, output_tokens=output, cache_read_tokens=cached, cache_write_tokens=written
        )
        expected = genai_prices.calc_price(usage, model, provider_api_url=base_url).total_price
        found = prices.cost_usd(base_url, model, Usage(tokens, output, cached, written))
        assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-15)


async def test_behind_another_address_the_models_name_decides(prices: PriceBook) -> None:
    usage = Usage(1_000, 10)
    assert prices.cost_usd("http://127.0.0.1:8000", "gpt-4o-mini", usage) == prices.cost_usd(OPENAI, "gpt-4o-mini", usage)


@pytest.mark.parametrize(("model", "usage"), [("no-such-model", Usage(1, 1)), ("", Usage(1, 1)), ("gpt-4o-mini", Usage(None, 5))])
async def test_the_unknown_has_no_price(prices: PriceBook, model: str, usage: Usage) -> None:
    assert prices.cost_usd(OPENAI, model, usage) is None


def test_before_the_table_is_there_nothing_has_a_price() -> None:
    assert PriceBook(lambda: 0.0).cost_usd(OPENAI, "gpt-4o-mini", Usage(1, 1)) is None
