"""`luthien config show`: every setting, its value and where it came from, what operators have set included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from proxy_core.errors import ConfigurationError, StoreError
from proxy_core.logs import escaped
from proxy_core.settings import PolicySettings, Settings
from proxy_core.settings_layers import DEFAULT, Fault, SettingsInvalid
from proxy_core.settings_sources import LoadedSettings, data_dir_path, shown

if TYPE_CHECKING:
    from proxy_core.control.overrides import Held


class Row(Struct, frozen=True):
    """One setting."""

    path: str
    value: Any
    """As it holds; a secret says only that it is set."""
    origin: str
    configured: tuple[Any, str] | None = None
    """Value and origin in the configuration, where an operator has set another one."""


def print_settings(loaded: LoadedSettings, *, as_json: bool) -> None:
    """Print the effective settings to stdout; secrets say only that they are set."""
    held, remarks = _set_by_operators(loaded)
    rows = [*_plain_rows(loaded, held.routing), *_policy_rows(loaded, held.policies)]
    warnings = [*loaded.warnings, *remarks]
    if as_json:
        print(json.dumps({"settings": {row.path: _as_json(row) for row in rows}, "warnings": warnings}, indent=2))
        return
    texts = {row.path: _text(row.value) for row in rows}
    name_width = max(map(len, texts))
    value_width = min(44, max(map(len, texts.values())))
    for row in rows:
        origin = row.origin
        if row.configured is not None:
            origin += f" (in place of {json.dumps(row.configured[0], ensure_ascii=False)}, {row.configured[1]})"
        print(f"{escaped(row.path):<{name_width}}  {texts[row.path]:<{value_width}}  {escaped(origin)}")
    for warning in warnings:
        print(f"warning: {escaped(warning)}")


def check_parts(loaded: LoadedSettings) -> None:
    """Build all policies and interceptors once. Raises SettingsInvalid with each fault."""
    from proxy_core.interceptors.registry import check_interceptors
    from proxy_core.policies.chain import build_chains

    faults: list[Fault] = []
    for check in (build_chains, check_interceptors):
        try:
            check(loaded.settings)
        except ConfigurationError as fault:
            faults += loaded.faults_in(str(fault))
    if faults:
        raise SettingsInvalid(faults)


def flat(tree: dict[str, Any], around: str = "") -> dict[str, Any]:
    """A nested dict as dotted paths, entries of lists of dicts with their number."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{around}{name}"
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            for at, one in enumerate(value):
                found.update(flat(one, f"{path}[{at}]."))
        else:
            found.update(flat(value, f"{path}.") if isinstance(value, dict) else {path: value})
    return found


def _as_json(row: Row) -> dict[str, Any]:
    found = {"value": row.value, "origin": row.origin}
    if row.configured is not None:
        found["configured"] = {"value": row.configured[0], "origin": row.configured[1]}
    return found


def _text(value: Any) -> str:
    return escaped(json.dumps(value, ensure_ascii=False))


# -- settings ---------------------------------------------------------------------------------------------------------


def _plain_rows(loaded: LoadedSettings, routing: dict[str, tuple[Any, str]]) -> Iterator[Row]:
    """Everything but policies; of their lists only that they are empty, where they are."""
    tree = shown(loaded.settings)
    if tree["data_dir"] is None:
        tree["data_dir"] = str(data_dir_path(loaded.settings))
    for name in ("policies", "chains"):
        if tree[name]:
            del tree[name]
    for path, value in flat(tree).items():
        origin = loaded.origin_of(path) if "[" in path else loaded.origins.get(path, DEFAULT)
        set_to = routing.get(path)
        yield Row(path, value, origin) if set_to is None else Row(path, *set_to, (value, origin))


def _policy_rows(loaded: LoadedSettings, held: dict[str, Held]) -> Iterator[Row]:
    settings = loaded.settings
    for at, one in enumerate(settings.policies):
        yield from _rows_of(one, f"policies[{at}]", loaded, held)
    for at, chain in enumerate(settings.chains):
        for name, value in chain.match.model_dump(exclude_none=True).items():
            yield Row(f"chains[{at}].match.{name}", value, loaded.origin_of(f"chains[{at}].match.{name}"))
        for inner, one in enumerate(chain.policies):
            yield from _rows_of(one, f"chains[{at}].policies[{inner}]", loaded, held)


def _rows_of(one: PolicySettings, place: str, loaded: LoadedSettings, held: dict[str, Held]) -> Iterator[Row]:
    """One policy with all its parameters, those included that nobody set."""
    values, params = _effective(one, loaded.settings)
    override = held.get(values["name"])
    for name, value in values.items():
        origin = loaded.origin_of(f"{place}.{name}") if name in one.model_fields_set else DEFAULT
        if name == "mode" and override is not None and override.mode is not None:
            yield Row(f"{place}.mode", override.mode, override.source, (value, origin))
        else:
            yield Row(f"{place}.{name}", value, origin)
    for name, value in params.items():
        origin = loaded.origin_of(f"{place}.params.{name}") if name in one.params else DEFAULT
        if override is not None and name in override.params:
            yield Row(f"{place}.params.{name}", override.params[name], override.source, (value, origin))
        else:
            yield Row(f"{place}.params.{name}", value, origin)


def _effective(one: PolicySettings, settings: Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the configuration makes of a policy: the settings around it, and its parameters without secrets."""
    from pydantic import ValidationError

    from proxy_core.policies.masking import masked, masked_raw
    from proxy_core.policies.registry import policy_class, registry_name

    name = one.name or registry_name(one.use)
    try:
        policy = policy_class(one.use, settings)
        params = masked(policy.params_model.model_validate(one.params))
    except (ConfigurationError, ValidationError):  # `luthien validate-config` says what is wrong
        around = {"use": one.use, "name": name, "mode": one.mode, "on_error": one.on_error, "deadline_s": one.deadline_s}
        return around, masked_raw(one.use, one.params)
    return {
        "use": one.use,
        "name": name,
        "mode": one.mode,
        "on_error": one.on_error or policy.default_on_error,
        "deadline_s": one.deadline_s or policy.default_deadline_s,
    }, params


# -- operators --------------------------------------------------------------------------------------------------------


class _Set(Struct, frozen=True):
    """What operators have set and what still holds of it."""

    policies: dict[str, Held] = {}
    """By the policy's name."""
    routing: dict[str, tuple[Any, str]] = {}
    """Value and origin, by dotted path."""


def _set_by_operators(loaded: LoadedSettings) -> tuple[_Set, list[str]]:
    """What operators have set; and what else they want, or why it is not known."""
    settings = loaded.settings
    from luthien_tui.commands.log import store_url

    url = store_url(settings)
    if settings.journal.database_url is None and not (data_dir_path(settings) / "luthien.db").is_file():
        return _Set(), []
    try:
        return asyncio.run(_read_journal(url, settings))
    except StoreError as fault:
        return _Set(), [f"what operators have set is not known: {fault}"]


async def _read_journal(url: str, settings: Settings) -> tuple[_Set, list[str]]:
    from proxy_core.control.overrides import moment, recorded_overrides
    from proxy_core.control.route_book import RULES, UPSTREAM, forced_by, set_by
    from proxy_core.control.route_params import still_held
    from proxy_core.journal.rows import HASH_BYTES
    from proxy_core.journal.store import JournalStore

    store = await JournalStore.open(url, read_only=True)
    try:
        key = await store.hash_key() or b""
        recorded = await store.latest_policy_overrides()
        routing = await store.latest_routing_overrides()
    finally:
        await store.close()
    holding, _ = recorded_overrides(
        recorded, settings, lambda content: blake2b(content, digest_size=HASH_BYTES, key=key).digest()
    )
    found: dict[str, tuple[Any, str]] = {}
    if (rules := routing.get(RULES)) is not None:
        who, at_ns = set_by(rules)
        origin = f"operator {who} at {moment(at_ns)}"
        kept = still_held(settings.routing, rules.override.get("params") or {}, rules.override.get("over") or {})
        found = {f"routing.{name}": (value, origin) for name, value in kept.items()}
    remarks = []
    if (forced := forced_by(routing)) is not None:
        remarks.append(f"every request is kept local, as {forced.who} said")
    for name in settings.upstreams:
        one = routing.get(f"{UPSTREAM}{name}")
        if one is not None and one.override.get("state") in ("drained", "frozen"):
            remarks.append(f"upstream {name} is {one.override['state']}, as {one.who} said")
    return _Set(holding, found), remarks
