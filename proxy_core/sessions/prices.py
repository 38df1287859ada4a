"""What tokens cost: the configuration's own prices, else genai-prices' bundled table. Unknown models and missing counts have no
price: None, never 0.

The table takes a while to import, so it is loaded in a thread after the start; a model's rates are looked up once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from proxy_core.settings import Price, PricesSettings
from proxy_core.wire.conversation import Usage
from proxy_core.wire.dialects import Dialect

_NEVER = float("inf")
_RATES = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
_SPECIAL = (
    ("cache_write_1h_tokens", "cache_write_1h_mtok", "cache_write_mtok"),
    ("reasoning_tokens", "output_reasoning_mtok", "output_mtok"),
    ("input_audio_tokens", "input_audio_mtok", "input_mtok"),
    ("output_audio_tokens", "output_audio_mtok", "output_mtok"),
    ("web_searches", "web_searches_kcount", ""),
)
"""Fields of Usage, what their rate is called in the table, and the rate that they have been counted with."""
LOOKUP_TTL_S = 3_600.0
MAX_MODELS = 2_000
MAX_NAME_CHARS = 200
"""Names come from outside; no model has a longer one."""


class Place(Protocol):
    """The upstream at which tokens are used."""

    @property
    def name(self) -> str: ...
    @property
    def api(self) -> Dialect: ...
    @property
    def base_url(self) -> str: ...


class _Rates(Struct, frozen=True):
    """USD for one of each."""

    plain_input: float
    cached_input: float
    cache_write: float
    output: float
    special: tuple[tuple[str, float], ...] = ()
    """Fields of Usage that have a rate of their own: what that is beyond the rate that they have as input, write or output."""
    request: float = 0.0
    table: Any = None
    """The table's own price, which does the sum from so many tokens of input on."""
    table_from: float = _NEVER


class PriceBook:
    """Prices of models at upstreams."""

    def __init__(self, clock: Callable[[], float], settings: PricesSettings | None = None) -> None:
        self._clock = clock
        self._table: Any = None
        self._rates: dict[tuple[str, str, str], tuple[float, _Rates | None]] = {}
        self.use(settings or PricesSettings())

    def use(self, settings: PricesSettings) -> None:
        """These prices hold from now on."""
        self._own = settings.models
        self._own_there = {name: one.models for name, one in settings.upstreams.items()}
        self._rates.clear()

    async def load(self) -> None:
        """Load the table off the loop; cheap once it is there."""
        if self._table is None:
            self._table = await asyncio.to_thread(_load_table)
            self._rates.clear()

    @property
    def ready(self) -> bool:
        return self._table is not None

    def cost_usd(self, upstream: Place, model: str, usage: Usage, *, answered: str = "") -> float | None:
        """The price of `usage` in USD; None where the model, its price or a count is unknown.

        `model` was asked for, `answered` is what the upstream calls the one that answered.
        """
        if usage.input_tokens is None or not (model or answered):
            return None
        if usage.elsewhere:
            costs = [self.cost_usd(upstream, model, replace(usage, elsewhere=()), answered=answered)]
            costs += [self.cost_usd(upstream, other, used) for other, used in usage.elsewhere]
            return None if None in costs else sum(cost for cost in costs if cost is not None)
        model, answered = model[:MAX_NAME_CHARS], answered[:MAX_NAME_CHARS]
        place = (upstream.name, model, answered)
        known = self._rates.get(place)
        if known is None or self._clock() - known[0] > LOOKUP_TTL_S:
            if len(self._rates) >= MAX_MODELS:
                self._rates.clear()
            known = self._rates[place] = (self._clock(), self._look_up(upstream, model, answered))
        rates = known[1]
        if rates is None or (usage.tier and rates.table is not None):
            return None
        if usage.input_tokens > rates.table_from and not usage.web_searches:
            return self._by_table(rates, usage)
        # Where the provider searched, the count is the sum over several prompts, of which each was smaller.
        cached = usage.cached_input_tokens or 0
        written = usage.cache_write_tokens or 0
        plain = max(0, usage.input_tokens - cached - written)
        usd = plain * rates.plain_input + cached * rates.cached_input + written * rates.cache_write + rates.request
        usd += (usage.output_tokens or 0) * rates.output
        for name, rate in rates.special:
            usd += (getattr(usage, name) or 0) * rate
        return usd

    def _by_table(self, rates: _Rates, usage: Usage) -> float | None:
        counts: dict[str, int] = {
            "input_tokens": usage.input_tokens or 0,
            "output_tokens": usage.output_tokens or 0,
            "cache_read_tokens": usage.cached_input_tokens or 0,
            "cache_write_tokens": usage.cache_write_tokens or 0,
            "cache_write_1h_tokens": usage.cache_write_1h_tokens or 0,
        }
        try:
            return float(rates.table.calc_price(self._table.Usage(**counts))["total_price"])
        except (ValueError, KeyError, ArithmeticError):
            return None

    def _look_up(self, upstream: Place, model: str, answered: str) -> _Rates | None:
        for own in (self._own_there.get(upstream.name, {}), self._own):
            if (price := _fitting(own, (model, answered))) is not None:
                return _own_rates(price)
        if upstream.api is Dialect.OLLAMA or self._table is None:
            return None
        found = self._listed(upstream.base_url, answered) if answered else None
        return found or (self._listed(upstream.base_url, model) if model and model != answered else None)

    def _listed(self, base_url: str, model: str) -> _Rates | None:
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
        table_from = _NEVER
        rates: dict[str, float | None] = {"": 0.0}
        for name in (*_RATES, *(rate for _, rate, _ in _SPECIAL), "requests_kcount"):
            value = getattr(price, name)
            if value is not None and not isinstance(value, Decimal):
                table_from = min(table_from, *(tier.start for tier in value.tiers))
                value = value.base
            rates[name] = None if value is None else float(value) / (1e3 if name.endswith("_kcount") else 1e6)
        plain, output, cached, written = (rates[name] for name in _RATES)
        if plain is None:
            return None
        rates["output_mtok"] = output = output or 0.0
        rates["cache_write_mtok"] = written = plain if written is None else written
        special = [(field, rates[name], rates[counted] or 0.0) for field, name, counted in _SPECIAL]
        return _Rates(
            plain_input=plain,
            cached_input=plain if cached is None else cached,
            cache_write=written,
            output=output,
            special=tuple([(field, rate - counted) for field, rate, counted in special if rate is not None]),
            request=rates["requests_kcount"] or 0.0,
            table=price,
            table_from=table_from,
        )


def _fitting(own: Mapping[str, Price], models: Iterable[str]) -> Price | None:
    """The first price whose pattern fits one of the names."""
    for pattern, price in own.items():
        for model in models:
            if model and (model == pattern or ("*" in pattern and _fits(pattern, model))):
                return price
    return None


def _fits(pattern: str, model: str) -> bool:
    return fnmatchcase(model, pattern.replace("[", "[[]").replace("?", "[?]"))


def _own_rates(price: Price) -> _Rates:
    return _Rates(
        plain_input=price.input / 1e6,
        cached_input=(price.input if price.cache_read is None else price.cache_read) / 1e6,
        cache_write=(price.input if price.cache_write is None else price.cache_write) / 1e6,
        output=price.output / 1e6,
    )


def _load_table() -> Any:
    import genai_prices

    genai_prices.data_snapshot.get_snapshot()
    return genai_prices
