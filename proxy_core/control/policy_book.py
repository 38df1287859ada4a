"""The policies in force: read by the gateway once for each request, changed by operators and by the configuration file.

A change is validated by the policy's own model, built off to the side, recorded, and only then put in force, by setting one
attribute: a request sees the version before it or the one after it, never a mixture. What operators set survives a restart; see
`control.overrides` for how long it holds. One change is made at a time.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, get_args

from msgspec.structs import replace

from proxy_core.control.feed import Feed
from proxy_core.control.finishing import to_the_end
from proxy_core.control.overrides import (
    Held,
    declared_hash,
    difference,
    each_policy,
    effective,
    in_words,
    json_of,
    recorded_overrides,
    with_overrides,
    with_valid_overrides,
)
from proxy_core.control.plane import ControlInvalid, ControlNotFound, PolicyInfo
from proxy_core.control.policy_infos import policy_infos
from proxy_core.control.tunables import checked, without_hidden
from proxy_core.errors import ConfigurationError, JournalUnavailable
from proxy_core.journal.journal import Journal
from proxy_core.journal.records import ChangeSource, ControlChange
from proxy_core.policies.chain import SENDER, Chain, Chains, Entry
from proxy_core.policies.registry import build_policy, nearest
from proxy_core.policies.stats import PolicyStats
from proxy_core.settings import PolicySettings, Settings
from proxy_core.verdicts import Mode, Stage, Verdict

log = logging.getLogger(__name__)

RECORD_S = 5.0
"""A start does not wait longer for its own records."""
_PLACED = re.compile(r"(?:\S+ )?(params[^\s:]*): (.*)", re.DOTALL)


class PolicyBook:
    """Knows the policies of a running gateway, and changes them. `clock_ns` gives Unix time in nanoseconds."""

    def __init__(
        self,
        settings: Settings,
        *,
        journal: Journal,
        feed: Feed,
        stats: PolicyStats,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Take the configuration's policies. Raises ConfigurationError."""
        self._journal = journal
        self._feed = feed
        self._stats = stats
        self._clock_ns = clock_ns
        self._changing = asyncio.Lock()
        self._held: dict[str, Held] = {}
        self._take(settings, {}, with_overrides(settings, {}))

    chains: Chains
    """The version in force: read it once for each request."""

    def note(self, verdicts: Sequence[Verdict]) -> None:
        """Count what the policies of one transaction said."""
        self._stats.note(verdicts)

    @property
    def settings(self) -> Settings:
        """The configuration as far as it is in force."""
        return self._settings

    def infos(self) -> list[PolicyInfo]:
        """Every policy of every chain, in order, with how it fared."""
        return policy_infos(self.chains, self._stats)

    def info(self, name: str) -> PolicyInfo:
        """One policy. Raises ControlNotFound."""
        self._entry(name)
        return next(one for one in self.infos() if one.name == name)

    # --- operators ---

    async def set_policy(
        self, name: str, *, mode: str | None = None, params: dict[str, Any] | None = None, who: str, source: str = "operator"
    ) -> PolicyInfo:
        """Change mode or parameters: validated, recorded, then in force for every later request.

        Raises ControlNotFound, ControlInvalid (it names the field), JournalUnavailable; then nothing has changed.
        """
        return await to_the_end(self._set(name, mode, params, who[:100], cast(ChangeSource, source)))

    async def reset(self, name: str, *, who: str, source: str = "operator") -> PolicyInfo:
        """Take back what operators have set for a policy, so that the configuration holds again. Raises as `set_policy`."""
        return await to_the_end(self._reset(name, who[:100], cast(ChangeSource, source)))

    async def _set(
        self, name: str, mode: str | None, params: dict[str, Any] | None, who: str, source: ChangeSource
    ) -> PolicyInfo:
        async with self._changing:
            entry = self._entry(name)
            model = type(entry.policy).params_model
            held = self._held.get(name)
            declared = self._declared[name]
            present = {**declared.params, **(held.params if held is not None else {})}
            if mode is not None and mode not in get_args(Mode):
                raise ControlInvalid("mode", f"'{mode[:40]}' is none of {', '.join(get_args(Mode))}")
            if mode is not None and mode != entry.mode and entry.use == SENDER:
                raise ControlInvalid("mode", "here the gateway sends the request; this cannot be switched off")
            touched = without_hidden(params or {}, model)
            wanted = checked(model, present, touched)
            values, own = json_of(wanted), json_of(model.model_validate(declared.params))
            kept = {**(held.params if held is not None else {}), **{one: values[one] for one in touched}}
            new_mode = cast(Mode, mode) if mode is not None else entry.mode
            after = Held(
                mode=new_mode if new_mode != declared.mode else None,
                params={one: value for one, value in kept.items() if value != own.get(one)},
                who=who,
                at_ns=self._clock_ns(),
                declared=self._hashes[name],
            )
            await self._put_in_force(name, entry, after, source)
            return self.info(name)

    async def _reset(self, name: str, who: str, source: ChangeSource) -> PolicyInfo:
        async with self._changing:
            entry = self._entry(name)
            after = Held(who=who, at_ns=self._clock_ns(), declared=self._hashes[name])
            await self._put_in_force(name, entry, after, source)
            return self.info(name)

    async def _put_in_force(self, name: str, entry: Entry, held: Held, source: ChangeSource) -> None:
        """Build the version with `held`, record the difference, and make it the one in force."""
        declared = self._declared[name]
        raw = {**declared.params, **held.params}
        before_held = self._held.get(name)
        policy = entry.policy
        if held.params != (before_held.params if before_held is not None else {}):
            try:
                policy = build_policy(entry.use, raw, self._settings)
            except ConfigurationError as fault:
                placed = _PLACED.match(str(fault))
                raise ControlInvalid(*(placed.groups() if placed else ("params", str(fault)))) from fault
            policy.on_error = entry.on_error
        left = held.as_json()
        new = replace(entry, policy=policy, mode=held.mode or declared.mode, source=held.source if left else "file")
        chains = _with_entry(self.chains, new)
        before, after = difference(effective(entry), effective(new))
        if not (before or after) and left == (before_held.as_json() if before_held is not None else {}):
            return
        await self._journal.append(
            ControlChange(
                at_ns=held.at_ns,
                who=held.who,
                source=source,
                what=name,
                before=before,
                after=after,
                digest_before=self.chains.digest,
                digest_after=chains.digest,
                override=left,
                declared=held.declared,
            )
        )
        self._held = {one: other for one, other in self._held.items() if one != name} | ({name: held} if left else {})
        self._swap(chains)
        self._tell(name, held.who, before, after)

    # --- start and configuration ---

    async def restore(self) -> None:
        """Put in force what operators had set before the last end, as far as it still holds."""
        recorded = await self._journal.store.latest_policy_overrides()
        holding, stale = recorded_overrides(recorded, self._settings, self._journal.digest)
        for name in holding.keys() - self._declared.keys():
            log.info("policy '%s' is not configured; what %s set for it rests until it is", name, holding[name].who)
        chains, refused = with_valid_overrides(self._settings, holding)
        dropped = dict.fromkeys(stale, "its entry in the configuration was changed since") | refused
        held = holding | stale
        before = self.chains
        self._held = {name: one for name, one in held.items() if name not in dropped}
        self._swap(chains)
        for name, why in dropped.items():
            log.warning("policy '%s': the configuration holds, not what %s says (%s)", name, held[name].source, why)
            ended = ControlChange(
                at_ns=self._clock_ns(),
                who="luthien",
                source="start",
                what=name,
                before=held[name].as_json(),
                after=effective(self._entry(name)),
                digest_before=before.digest,
                digest_after=chains.digest,
                override={},
            )
            try:
                await asyncio.wait([self._journal.append(ended)], timeout=RECORD_S)
            except JournalUnavailable as fault:
                log.warning("this is not in the journal: %s", fault)
        for name in self._held.keys() & self._declared.keys():
            log.info("policy '%s' is set by %s: %s", name, self._held[name].source, in_words({}, self._held[name].as_json()))

    async def take_settings(
        self,
        settings: Settings,
        *,
        who: str,
        others: Mapping[str, tuple[dict[str, Any], dict[str, Any]]],
        digests: Mapping[str, tuple[str, str]] | None = None,
        then: Callable[[], None],
    ) -> list[str]:
        """Put another configuration in force: its policies and chains, and what `then` does in the same moment.

        `others` are further sections that differ, before and after, to be recorded, and `digests` those of them that have one.
        Returns what has changed, a line each. Raises ConfigurationError, JournalUnavailable; then nothing has changed.
        """
        return await to_the_end(self._take_settings(settings, who, others, digests or {}, then))

    async def _take_settings(
        self,
        settings: Settings,
        who: str,
        others: Mapping[str, tuple[dict[str, Any], dict[str, Any]]],
        digests: Mapping[str, tuple[str, str]],
        then: Callable[[], None],
    ) -> list[str]:
        async with self._changing:
            hashes = {name: declared_hash(one, settings, self._journal.digest) for name, one in each_policy(settings)}
            kept = {name: one for name, one in self._held.items() if hashes.get(name, one.declared) == one.declared}
            chains, refused = with_valid_overrides(settings, kept)
            kept = {name: one for name, one in kept.items() if name not in refused}
            now = self._clock_ns()
            old, new = _entries(self.chains), _entries(chains)
            lines: list[str] = []
            records: list[ControlChange] = []

            of_chains = self.chains.digest, chains.digest

            def changed(
                what: str,
                before: dict[str, Any],
                after: dict[str, Any],
                override: dict[str, Any] | None,
                known_by: tuple[str, str] = of_chains,
            ) -> None:
                lines.append(f"{what}: {in_words(before, after) or 'as the configuration says'}")
                records.append(
                    ControlChange(
                        at_ns=now,
                        who=who,
                        source="file",
                        what=what,
                        before=before,
                        after=after,
                        digest_before=known_by[0],
                        digest_after=known_by[1],
                        override=override,
                    )
                )

            for name in {**old, **new}:
                before, after = difference(effective(old.get(name)), effective(new.get(name)))
                ended = name in self._held and name not in kept and name in new
                if before or after or ended:
                    changed(name, before, after, {} if ended else None)
            if (before_order := _order(self.chains)) != (after_order := _order(chains)):
                changed("policies", before_order, after_order, None)
            for section, (one_before, one_after) in others.items():
                changed(section, one_before, one_after, None, digests.get(section, ("", "")))
            for name, why in refused.items():
                log.warning("policy '%s': what an operator set no longer fits, so the configuration holds (%s)", name, why)
            if records:
                await asyncio.gather(*[self._journal.append(one) for one in records])
            self._take(settings, kept, chains)
            then()
            if records:
                self._feed.publish("control_changed", None, f"{who}: {'; '.join(lines)}"[:500])
            return lines

    # --- parts ---

    def _take(self, settings: Settings, held: dict[str, Held], chains: Chains) -> None:
        self._settings = settings
        self._declared: dict[str, PolicySettings] = dict(each_policy(settings))
        self._hashes = {name: declared_hash(one, settings, self._journal.digest) for name, one in self._declared.items()}
        self._held = held
        self._swap(chains)

    def _swap(self, chains: Chains) -> None:
        self.chains = chains
        self._by_name = _entries(chains)

    def _entry(self, name: str) -> Entry:
        entry = self._by_name.get(name)
        if entry is None:
            near = nearest(name[:200], self._by_name)
            hint = f"did you mean '{near}'?" if near else f"there are: {', '.join(self._by_name) or 'none'}"
            raise ControlNotFound(f"there is no policy '{name[:200]}'; {hint}")
        return entry

    def _tell(self, name: str, who: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        words = in_words(before, after) or "as the configuration says"
        log.info("policy '%s' set by %s: %s", name, who, words)
        self._feed.publish("control_changed", None, f"{name} set by {who}: {words}"[:500])


def _entries(chains: Chains) -> dict[str, Entry]:
    return {entry.name: entry for chain in chains.all for entry in chain.entries}


def _order(chains: Chains) -> dict[str, Any]:
    """The names of each chain, in order."""
    return {chain.name: [entry.name for entry in chain.entries] for chain in chains.all}


def _with_entry(chains: Chains, new: Entry) -> Chains:
    """The same chains with another entry of the same name; all other policies stay the objects that they are.

    Raises ControlInvalid where the chain would make no sense.
    """
    changed: list[Chain] = []
    for chain in chains.all:
        entries = [new if entry.name == new.name else entry for entry in chain.entries]
        if any(entry is new for entry in entries):
            _refuse_senseless(entries)
            chain = Chain(entries, name=chain.name, selector=chain.selector)
        changed.append(chain)
    return Chains(changed[0], changed[1:])


def _refuse_senseless(entries: Sequence[Entry]) -> None:
    sender = ""
    for entry in entries:
        if entry.policy.sends and entry.mode == "enforce":
            if sender:
                raise ControlInvalid("mode", f"only one policy of a chain can send, and '{sender}' does")
            sender = entry.name
        elif sender and entry.mode != "off" and not entry.policy.acts_on(Stage.RESPONSE, before_send=False):
            raise ControlInvalid("mode", f"'{entry.name}' acts on requests only, and '{sender}' would send before it")
