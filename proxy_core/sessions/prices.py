"""What tokens cost, from genai-prices' bundled table. Unknown models and missing counts have no price: None, never 0.

The table takes a while to import, so it is loaded in a thread after the start; a model's rates are looked up once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from msgspec import Struct

from proxy_core.wire.conversation import Usage

LOOKUP_TTL_S = 3_600.0
MAX_MODELS = 2_000


class _Rates(Struct, frozen=True):
    """USD per token."""

    plain_input: float
    cached_input: float
    cache_write: float
    output: float
    tiered: Any = None
    """The table's own price where it depends on the amount; then it does the sum."""


class PriceBook:
    """Prices of models at upstreams."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._table: Any = None
        self._loading: asyncio.Task[None] | None = None
        self._rates: dict[tuple[str, str], tuple[float, _Rates | None]] = {}

    async def load(self) -> None:
        """Load the table off the loop; cheap once it is there."""
        if self._table is None:
            self._table = await asyncio.to_thread(_load_table)

    @property
    def ready(self) -> bool:
        return self._table is not None

    def cost_usd(self, base_url: str, model: str, usage: Usage) -> float | None:
        """The price of `usage` in USD; None where the model, its price or a count is unknown."""
        if not model or usage.input_tokens is None or self._table is None:
            return None
        known = self._rates.get((base_url, model))
        if known is None or self._clock() - known[0] > LOOKUP_TTL_S:
            if len(self._rates) >= MAX_MODELS:
                self._rates.clear()
            known = (self._clock(), self._look_up(base_url, model))
            self._rates[(base_url, model)] = known
        rates = known[1]
        if rates is None:
            return None
        cached = usage.cached_input_tokens or 0
        written = usage.cache_write_tokens or 0
        output = usage.output_tokens or 0
        if rates.tiered is not None:
            return self._tiered(rates.tiered, usage.input_tokens, output, cached, written)
        plain = max(0, usage.input_tokens - cached - written)
        return plain * rates.plain_input + cached * rates.cached_input + written * rates.cache_write + output * rates.output

    def _tiered(self, price: Any, input_tokens: int, output: int, cached: int, written: int) -> float | None:
        usage = self._table.Usage(
            input_tokens=input_tokens, output_tokens=output, cache_read_tokens=cached, cache_write_tokens=written
        )
        try:
            return float(price.calc_price(usage)["total_price"])
        except (ValueError, KeyError, ArithmeticError):
            return None

    def _look_up(self, base_url: str, model: str) -> _Rates | None:
        snapshot = self._table.data_snapshot.get_snapshot()
        found = None
        # The address tells the provider; behind another gateway's address the model's name has to.
        for url in (base_url, None):
            try:
                found = snapshot.find_provider_model(model, None, None, url)[1]
                break
            except LookupError:
                continue
        if found is None:
            return None
        price = found.get_prices(datetime.now(tz=UTC))
        values = {
            name: getattr(price, name, None) for name in ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
        }
        if values["input_mtok"] is None:
            return None
        if any(value is not None and not isinstance(value, Decimal) for value in values.values()):
            return _Rates(0.0, 0.0, 0.0, 0.0, tiered=price)
        plain = float(values["input_mtok"]) / 1e6
        return _Rates(
            plain_input=plain,
            cached_input=plain if values["cache_read_mtok"] is None else float(values["cache_read_mtok"]) / 1e6,
            cache_write=plain if values["cache_write_mtok"] is None else float(values["cache_write_mtok"]) / 1e6,
            output=float(values["output_mtok"] or 0) / 1e6,
        )


def _load_table() -> Any:
    import genai_prices

    genai_prices.data_snapshot.get_snapshot()
    return genai_prices
