"""`luthien keys`: keys for clients of this gateway, kept in the journal's store. A running gateway takes changes at once."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from pydantic import ValidationError

from luthien_tui.commands.given import Given
from proxy_core.errors import ConfigurationError, ExitCode, StoreError
from proxy_core.journal.client_keys import ClientKeys, KeyLimits, RecordedKey
from proxy_core.limits.accounts import in_usd
from proxy_core.logs import escaped
from proxy_core.settings import LimitSettings, Settings
from proxy_core.settings_sources import data_dir_path

_Result = TypeVar("_Result")


def create_key(given: Given, name: str, limits: dict[str, Any], *, as_json: bool) -> int:
    """Make a key and print it, this once. Raises ConfigurationError, StoreError."""
    settings = given.load().settings
    checked = _checked(limits)
    key = _in_store(settings, lambda keys: keys.create(name, checked, _who()))
    if as_json:
        print(json.dumps({"name": name, "key": key, "limits": msgspec.to_builtins(checked)}))
        return ExitCode.OK
    print(key)
    print("Keep it now: it is not stored, and cannot be shown again.", file=sys.stderr)
    if settings.server.auth == "passthrough":
        print("It is not asked for yet: set 'server.auth' to 'gateway' or 'both', and start luthien anew.", file=sys.stderr)
    return ExitCode.OK


def list_keys(given: Given, *, as_json: bool) -> int:
    """Print the keys of the store and of the configuration, none of them readable. Raises StoreError."""
    settings = given.load().settings
    stored = _in_store(settings, lambda keys: keys.all())
    if as_json:
        found = [_json(one) for one in stored]
        found += [{"name": name, "status": _status(one.active), "source": "configuration"} for name, one in settings.keys.items()]
        print(json.dumps({"keys": found}, indent=2))
        return ExitCode.OK
    if not stored and not settings.keys:
        print("no keys; `luthien keys create NAME` makes one")
    for one in stored:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.created_ns / 1e9))
        print(f"{one.name:<24} {one.hint + '…':<10} {one.status:<8} {made}  {escaped(_limits_text(one.limits))}".rstrip())
    for name, configured in settings.keys.items():
        print(f"{escaped(name):<24} {'':<10} {_status(configured.active):<8} from the configuration")
    return ExitCode.OK


def revoke_key(given: Given, name: str, *, as_json: bool) -> int:
    """Refuse a key from now on. Raises ConfigurationError, StoreError."""
    settings = given.load().settings
    if name in settings.keys and name not in {one.name for one in _in_store(settings, lambda keys: keys.all())}:
        raise ConfigurationError(f"the key '{name}' stands in the configuration; set 'keys.{name}.active' to false there")
    revoked = _in_store(settings, lambda keys: keys.revoke(name, _who()))
    if as_json:
        print(json.dumps({"name": name, "status": "revoked", "changed": revoked}))
    else:
        print(f"{name} is revoked" if revoked else f"{name} was revoked already")
    return ExitCode.OK


def _in_store(settings: Settings, work: Callable[[ClientKeys], Awaitable[_Result]]) -> _Result:
    folder = data_dir_path(settings)

    async def run() -> _Result:
        keys = await ClientKeys.open(settings.journal.database_url or f"sqlite+aiosqlite:///{folder / 'luthien.db'}")
        try:
            return await work(keys)
        finally:
            await keys.close()

    try:
        if settings.journal.database_url is None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return asyncio.run(run())
    except OSError as fault:
        raise StoreError(f"the store cannot be used: {fault.strerror or fault}; choose another folder with --data-dir") from fault


def _checked(limits: dict[str, Any]) -> KeyLimits:
    """The limits, held to the same bounds as those of the configuration."""
    try:
        checked = LimitSettings.model_validate({name: value for name, value in limits.items() if value is not None})
    except ValidationError as fault:
        first = fault.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise ConfigurationError(f"--{option}: {first['msg'].lower()}") from fault
    return KeyLimits(
        models=tuple(checked.models),
        rpm=checked.rpm,
        tpm=checked.tpm,
        usd_per_day=checked.usd_per_day,
        usd_per_month=checked.usd_per_month,
        burst=checked.burst,
    )


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "cli"


def _status(active: bool) -> str:
    return "active" if active else "revoked"


def _json(one: RecordedKey) -> dict[str, Any]:
    return {
        "name": one.name,
        "status": one.status,
        "source": "store",
        "hint": one.hint,
        "limits": msgspec.to_builtins(one.limits),
        "created_at": one.created_ns / 1e9,
        "changed_at": one.at_ns / 1e9,
        "changed_by": one.who,
    }


def _limits_text(limits: KeyLimits) -> str:
    parts = [", ".join(limits.models)] if limits.models else []
    parts += [f"{limits.rpm:,} requests/min"] if limits.rpm is not None else []
    parts += [f"{limits.burst:,} at once"] if limits.burst is not None else []
    parts += [f"{limits.tpm:,} tokens/min"] if limits.tpm is not None else []
    parts += [f"{in_usd(limits.usd_per_day)} a day"] if limits.usd_per_day is not None else []
    parts += [f"{in_usd(limits.usd_per_month)} a month"] if limits.usd_per_month is not None else []
    return "; ".join(parts)
