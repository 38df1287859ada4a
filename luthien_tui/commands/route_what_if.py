"""`luthien route what-if`: which recorded transactions changed rules would have sent elsewhere, and what that would have cost.

Nothing is sent or changed. The rules that are compared with are those in force, where a gateway runs over this data folder, with
all that operators have set; else those of the configuration, and the journal is read here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from luthien_tui import figures
from luthien_tui.commands.log import store_url
from luthien_tui.commands.running_gateway import ask_running
from proxy_core.control.plane import ControlInvalid
from proxy_core.control.route_params import changed
from proxy_core.control.routing_infos import WhatIf
from proxy_core.errors import ConfigurationError, ExitCode
from proxy_core.logs import escaped
from proxy_core.settings import Settings


def print_what_if(settings: Settings, changes: Sequence[str], *, limit: int, configured: bool, as_json: bool) -> int:
    """Print what the changes, such as `cost.max_prompt_length_for_local=500`, would have moved.

    With `configured` a gateway that runs is not asked. Raises ConfigurationError, StoreError.
    """
    params = dict(_parsed(one) for one in changes)
    if not params:
        raise ConfigurationError("give at least one change: --set cost.max_prompt_length_for_local=500")
    try:
        question = {"params": params, "limit": limit}
        found = None if configured else ask_running(settings, "/api/routing/what-if", question, WhatIf)
        if found is None:
            found = asyncio.run(_ask(settings, params, limit))
    except ControlInvalid as fault:
        raise ConfigurationError(f"--set {fault.field.removeprefix('params.')}: {fault.message}") from fault
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
    else:
        _print(found)
    return ExitCode.OK


def _parsed(change: str) -> tuple[str, Any]:
    """Name and value; `none` unsets, a number is a number, anything else a word."""
    name, separator, text = change.partition("=")
    name, text = name.strip().removeprefix("routing."), text.strip()
    if not separator or not name or not text:
        raise ConfigurationError(f"--set {change}: write NAME=VALUE")
    if text.lower() in ("none", "null"):
        return name, None
    for number in (int, float):
        try:
            return name, number(text)
        except ValueError:
            continue
    return name, text


async def _ask(settings: Settings, params: dict[str, Any], limit: int) -> WhatIf:
    from proxy_core.control.route_what_if import RouteWhatIf
    from proxy_core.journal.store import JournalStore
    from proxy_core.routing.router import Router, rules_of
    from proxy_core.routing.upstreams import Upstreams
    from proxy_core.sessions.prices import PriceBook

    wanted = changed(settings.routing, params, tuple(settings.upstreams))
    store = await JournalStore.open(store_url(settings))
    try:
        upstreams, prices = Upstreams(settings), PriceBook(time.monotonic, settings.prices)
        await prices.load()
        asked = RouteWhatIf(router=Router(settings, upstreams), upstreams=upstreams, store=store, prices=prices)
        return await asked.ask(rules_of(settings.routing), rules_of(wanted), limit)
    finally:
        await store.close()


def _print(found: WhatIf) -> None:
    unread = f"; {found.unread:,} more cannot be decided anew" if found.unread else ""
    print(f"{found.moved:,} of the last {found.total:,} transactions would have gone elsewhere{unread}")
    for move in found.moves:
        print(f"  {move.count:>6,}  {move.from_upstream or 'refused'} → {move.to_upstream or 'refused'}")
    if found.moved:
        unknown = f"; {found.unknown_cost:,} have no known price" if found.unknown_cost else ""
        print(f"cost of these: {figures.usd(found.cost_before_usd)} → {figures.usd(found.cost_after_usd)}{unknown}")
    for one in found.examples[:5]:
        print(escaped(f"  {one.transaction_id}  {one.model or '-'}  {', '.join(one.reasons)}"))
