"""The policies in force as front ends see them: what each is set to, and how it fared."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from proxy_core.control.plane import PolicyInfo
from proxy_core.control.tunables import param_infos
from proxy_core.policies.base import ControlPolicy, Release
from proxy_core.policies.chain import Chain, Chains, Entry
from proxy_core.policies.stats import PolicyStats
from proxy_core.verdicts import Stage


def policy_infos(chains: Chains, stats: PolicyStats) -> list[PolicyInfo]:
    """Every policy of every chain, in order."""
    return [info for chain in chains.all for info in _of_chain(chain, stats)]


def _of_chain(chain: Chain, stats: PolicyStats) -> Iterator[PolicyInfo]:
    sending = [at for at, entry in enumerate(chain.entries) if entry.policy.sends]
    send_at = sending[0] if sending else len(chain.entries)
    for at, entry in enumerate(chain.entries):
        stages = _stages(entry, before_send=at < send_at)
        figures = stats.figures(entry.name)
        policy = entry.policy
        yield PolicyInfo(
            name=entry.name,
            use=entry.use,
            summary=_summary(type(policy)),
            mode=entry.mode,
            on_error=entry.on_error,
            chain=chain.name,
            position=at + 1,
            stages=stages,
            release=_release(entry, stages).name.lower(),
            sends=policy.sends,
            params=param_infos(policy.params),
            source=entry.source,
            hits_1h=figures.hits_1h,
            acted_1h=figures.acted_1h,
            shadow_1h=figures.shadow_1h,
            errors_1h=figures.errors_1h,
            per_minute=figures.per_minute,
            p50_ms=figures.p50_ms,
            p99_ms=figures.p99_ms,
            acted_today=figures.acted_today,
            recent_scores=figures.recent_scores,
        )


def _stages(entry: Entry, *, before_send: bool) -> tuple[str, ...]:
    if entry.policy.sends:
        return ()
    return tuple(stage.value for stage in (Stage.REQUEST, Stage.RESPONSE) if entry.policy.acts_on(stage, before_send=before_send))


def _release(entry: Entry, stages: tuple[str, ...]) -> Release:
    """What it keeps back of a stream: nothing where it never sees one."""
    if entry.policy.sends:
        return entry.policy.release if entry.policy.release is not None else Release.PASS
    return entry.policy.release_mode() if Stage.RESPONSE.value in stages else Release.PASS


def _summary(policy: type[ControlPolicy[Any]]) -> str:
    text = inspect.cleandoc(policy.__doc__ or "")
    return policy.summary or " ".join(text.partition("\n\n")[0].split())
