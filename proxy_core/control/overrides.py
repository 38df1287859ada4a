"""What operators have set in place of the configuration's values, and when it still holds.

The rule: an operator's change of a policy holds, over restarts too, until somebody changes that policy's own entry in the
configuration; then the configuration holds. Only what the operator touched is kept, so the rest follows the file. Pure
functions; secrets are no part of anything here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast, get_args

import msgspec
from msgspec import Struct
from pydantic import BaseModel, ValidationError

from proxy_core.errors import ConfigurationError
from proxy_core.journal.control_reads import RecordedOverride
from proxy_core.policies.chain import Chains, Entry, Override, build_chains
from proxy_core.policies.masking import masked
from proxy_core.policies.registry import policy_class, registry_name
from proxy_core.settings import PolicySettings, Settings
from proxy_core.verdicts import Mode


class Held(Struct, frozen=True, kw_only=True):
    """An operator's change of one policy that is in force."""

    mode: Mode | None = None
    params: dict[str, Any] = {}
    """The parameters that were set, as JSON, and only those."""
    who: str
    at_ns: int
    declared: str
    """Keyed hash of the configuration's entry that it stands in for."""

    @property
    def source(self) -> str:
        """As `luthien config show` and the screen say it."""
        return f"operator {self.who} at {moment(self.at_ns)}"

    def as_json(self) -> dict[str, Any]:
        """The form in which it is recorded; `{}` where nothing is left of it."""
        found: dict[str, Any] = {}
        if self.mode is not None:
            found["mode"] = self.mode
        if self.params:
            found["params"] = self.params
        return found


def moment(at_ns: int) -> str:
    """A time as people and programs read it: UTC, to the second."""
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def each_policy(settings: Settings) -> Iterator[tuple[str, PolicySettings]]:
    """Every policy of every chain, with its name."""
    for chain in (settings.policies, *(one.policies for one in settings.chains)):
        for one in chain:
            yield one.name or registry_name(one.use), one


def declared_hash(one: PolicySettings, settings: Settings, digest: Callable[[bytes], bytes]) -> str:
    """What identifies an entry of the configuration; a secret that was only renewed changes nothing."""
    try:
        params: Any = masked(policy_class(one.use, settings).params_model.model_validate(one.params), only_set=True)
    except (ConfigurationError, ValidationError):
        params = one.params
    what = [registry_name(one.use), one.mode, one.on_error, one.deadline_s, params]
    return digest(msgspec.json.encode(what, order="deterministic", enc_hook=str)).hex()


def recorded_overrides(
    recorded: Mapping[str, RecordedOverride], settings: Settings, digest: Callable[[bytes], bytes]
) -> tuple[dict[str, Held], dict[str, Held]]:
    """What the journal has of operators: what still holds (or rests, because its policy is not configured), and what ended."""
    hashes = {name: declared_hash(one, settings, digest) for name, one in each_policy(settings)}
    holding: dict[str, Held] = {}
    ended: dict[str, Held] = {}
    for name, one in recorded.items():
        mode = cast(Mode, one.mode) if one.mode in get_args(Mode) else None
        held = Held(mode=mode, params=one.params, who=one.who, at_ns=one.at_ns, declared=one.declared)
        (holding if hashes.get(name, one.declared) == one.declared else ended)[name] = held
    return holding, ended


def with_overrides(settings: Settings, held: Mapping[str, Held]) -> Chains:
    """The chains of a configuration with what operators have set. Raises ConfigurationError."""
    given: dict[str, Override] = {}
    for name, one in each_policy(settings):
        if (override := held.get(name)) is not None:
            params = {**one.params, **override.params} if override.params else None
            given[one.name or one.use] = Override(mode=override.mode, params=params, source=override.source)
    return build_chains(settings, given)


def with_valid_overrides(settings: Settings, held: Mapping[str, Held]) -> tuple[Chains, dict[str, str]]:
    """The same, without those overrides that are no longer valid: their names, and what is wrong with each.

    Raises ConfigurationError where the configuration itself is at fault.
    """
    try:
        return with_overrides(settings, held), {}
    except ConfigurationError:
        chains = with_overrides(settings, {})
    good: dict[str, Held] = {}
    refused: dict[str, str] = {}
    for name, one in held.items():
        try:
            chains = with_overrides(settings, {**good, name: one})
        except ConfigurationError as fault:
            refused[name] = " ".join(str(fault).split())
        else:
            good[name] = one
    return chains, refused


def effective(entry: Entry | None) -> dict[str, Any]:
    """What a policy is set to, as JSON without secrets; `{}` where there is none."""
    if entry is None:
        return {}
    return {
        "use": entry.use,
        "mode": entry.mode,
        "on_error": entry.on_error,
        "deadline_s": entry.deadline_s,
        "params": masked(entry.policy.params),
    }


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is not the same, of each side; `params` are compared one by one."""
    left: dict[str, Any] = {}
    right: dict[str, Any] = {}
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if name == "params" and isinstance(old, dict) and isinstance(new, dict):
            old, new = difference(old, new)
        if name in before:
            left[name] = old
        if name in after:
            right[name] = new
    return left, right


def in_words(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """A difference in one line: `mode enforce → off, threshold 0.5 → 0.7`."""
    parts: list[str] = []
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if name == "params" and (isinstance(old, dict) or isinstance(new, dict)):
            parts.append(in_words(old or {}, new or {}))
        elif name not in before:
            parts.append(f"{name} {_short(new)}")
        elif name not in after:
            parts.append(f"no {name}")
        else:
            parts.append(f"{name} {_short(old)} → {_short(new)}")
    return ", ".join(part for part in parts if part)


def json_of(params: BaseModel) -> dict[str, Any]:
    """Parameters as JSON, secrets masked by their type."""
    dumped: dict[str, Any] = params.model_dump(mode="json", by_alias=True)
    return dumped


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 40 else text[:39] + "…"
