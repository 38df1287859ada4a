"""Which limits hold for a request: those of its key, its agent and its upstream. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import translate
from functools import lru_cache
from typing import Literal, TypeVar

from msgspec import Struct

from proxy_core.journal.client_keys import KeyLimits
from proxy_core.limits.accounts import NANO
from proxy_core.settings import LimitSettings, LimitsSettings

_Number = TypeVar("_Number", int, float)

OTHERS = "*"
"""In place of a name: each one that is not named."""


class Rule(Struct, frozen=True):
    """The limits of one key, agent or upstream; None sets no limit."""

    kind: Literal["key", "agent", "upstream"]
    name: str
    models: tuple[str, ...]
    rpm: int | None
    burst: int | None
    """Requests at once; as many as in a minute where it is not set."""
    tpm: int | None
    day_nano_usd: int | None
    month_nano_usd: int | None

    @property
    def scope(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def budgeted(self) -> bool:
        return self.day_nano_usd is not None or self.month_nano_usd is not None

    def allows(self, model: str) -> bool:
        return not self.models or _pattern(self.models).fullmatch(model) is not None


def rules_for(settings: LimitsSettings, *, key: str, own: KeyLimits | None, agent: str, upstream: str) -> tuple[Rule, ...]:
    """The rules of a request, without those that set no limit.

    Of a key, what the configuration says under its name goes before what it was made with, and that before `*`.
    """
    named = settings.keys.get(key)
    others = settings.keys.get(OTHERS) if key else None
    found = [
        _rule("key", key, [one for one in (named, own, others) if one is not None]),
        _rule("agent", agent, _configured(settings.agents, agent)),
        _rule("upstream", upstream, _configured(settings.upstreams, upstream)),
    ]
    return tuple(rule for rule in found if rule is not None)


def _configured(section: Mapping[str, LimitSettings], name: str) -> list[LimitSettings | KeyLimits]:
    found = (section.get(name) or section.get(OTHERS)) if name else None
    return [found] if found is not None else []


def _rule(kind: Literal["key", "agent", "upstream"], name: str, sources: list[LimitSettings | KeyLimits]) -> Rule | None:
    if not sources:
        return None
    rule = Rule(
        kind,
        name,
        models=next((tuple(one.models) for one in sources if one.models), ()),
        rpm=_first(one.rpm for one in sources),
        burst=_first(one.burst for one in sources),
        tpm=_first(one.tpm for one in sources),
        day_nano_usd=_nano(_first(one.usd_per_day for one in sources)),
        month_nano_usd=_nano(_first(one.usd_per_month for one in sources)),
    )
    limits = (rule.models or None, rule.rpm, rule.tpm, rule.day_nano_usd, rule.month_nano_usd)
    return rule if any(one is not None for one in limits) else None


def _first(values: Iterable[_Number | None]) -> _Number | None:
    return next((value for value in values if value is not None), None)


def _nano(usd: float | None) -> int | None:
    return None if usd is None else round(usd * NANO)


@lru_cache(maxsize=1_000)
def _pattern(models: tuple[str, ...]) -> re.Pattern[str]:
    # Of the shape that `translate` gives, no name can make the search go back and forth for long.
    shapes = [translate(one.replace("[", "[[]").replace("?", "[?]")) for one in models]
    return re.compile("|".join(f"(?:{shape})" for shape in shapes))
