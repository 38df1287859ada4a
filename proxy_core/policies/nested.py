"""Policies inside a policy: what `serial` and `branching` share.

Nested policies run as a chain would run them: in order, each under its own name (`outer/inner`), in both phases and on
streams. A fault of one is a fault of the whole, named after the one that failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from msgspec import Struct
from pydantic import Field, model_validator

from proxy_core.errors import ConfigurationError, LuthienError
from proxy_core.policies.base import ControlPolicy, Params, PolicyDenied, PolicyFault, PolicyParams, Release
from proxy_core.routing.reasons import Reason
from proxy_core.settings import Settings
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.conversation import StreamEvent

MAX_DEPTH = 20
"""Policies inside policies inside policies, and so on."""


class NestedPolicy(PolicyParams):
    """One policy inside another."""

    use: str
    """Registry name of the policy."""
    name: str = ""
    """Name in verdicts; else its registry name."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Its parameters."""

    @model_validator(mode="before")
    @classmethod
    def _takes_the_forms_of_luthien_control(cls, value: Any) -> Any:
        """`{type, config: {…}}` and the flat `{type, name, …}` mean the same as `{use, name, params}`."""
        if not isinstance(value, Mapping) or "type" not in value or "use" in value:
            return value
        rest = {key: inner for key, inner in value.items() if key not in ("type", "name", "config")}
        config = value.get("config") or {}
        if not isinstance(config, Mapping):
            raise ValueError("config has to be an object")
        params = {**rest, **config}
        name = params.pop("name", None) or value.get("name") or ""
        return {"use": value["type"], "name": "" if name == value["type"] else name, "params": params}


class Child(Struct, frozen=True):
    """A nested policy, built."""

    name: str
    policy: ControlPolicy[Any]


class NestedFault(PolicyFault):
    """A fault that names the nested policy already."""


def build_children(nested: Sequence[NestedPolicy], settings: Settings, places: Sequence[str]) -> list[Child]:
    """Build policies and give each a name of its own. Raises ConfigurationError with a line for each fault of any."""
    from proxy_core.policies.registry import build_policy

    if places and places[0].count("params.") > MAX_DEPTH:
        raise ConfigurationError(f"params: policies are nested more than {MAX_DEPTH} deep")
    faults: list[str] = []
    children: list[Child] = []
    taken: set[str] = set()
    for one, place in zip(nested, places, strict=True):
        try:
            policy = build_policy(one.use, one.params, settings, place)
        except ConfigurationError as fault:
            faults.append(str(fault))
            continue
        wanted = (one.name or policy.registry_name()).replace("/", "-")
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted}-{count}"
        taken.add(name)
        children.append(Child(name, policy))
    if faults:
        raise ConfigurationError("\n".join(faults))
    return children


class Composite(ControlPolicy[Params]):
    """A policy that holds others."""

    def __init__(self, params: Params, children: Sequence[Child]) -> None:
        super().__init__(params)
        self.children = tuple(children)
        self.before_send = True
        """Where it stands, as the chain said."""
        policies = [child.policy for child in self.children]
        strict = any(one.default_on_error != "allow" for one in policies)
        # of this one, where the base says it of the class
        self.__dict__.update(
            sends=any(one.sends for one in policies),
            waits_for_people=any(one.waits_for_people for one in policies),
            default_on_error="deny" if strict or not policies else "allow",
            default_deadline_s=sum((one.default_deadline_s for one in policies), 0.0) or self.default_deadline_s,
        )
        self.on_error = self.default_on_error

    def placed(self, *, before_send: bool) -> None:
        self.before_send = before_send
        for child in self.children:
            child.policy.placed(before_send=before_send)

    def acts_on(self, stage: Stage, *, before_send: bool) -> bool:
        return any(child.policy.acts_on(stage, before_send=before_send) for child in self.children)

    def streams(self) -> bool:  # type: ignore[override]
        return self.release_mode() is not Release.FULL

    def release_mode(self) -> Release:
        modes = [child.policy.release_mode() for child in self.children if self.acts(child, Stage.RESPONSE)]
        return max(modes, default=Release.PASS)

    def acts(self, child: Child, stage: Stage) -> bool:
        """Whether a nested policy has something to do, where this one stands."""
        return not child.policy.sends and child.policy.acts_on(stage, before_send=self.before_send)

    async def run(self, child: Child, context: TransactionContext) -> TransactionContext:
        """One nested policy on a whole request or response, under its own name."""
        outer = context.policy
        context.policy = f"{outer}/{child.name}"
        policy = child.policy
        policy.on_error = self.on_error
        if policy.operations is not None and context.operation not in policy.operations:
            context.verdict("allow", Reason.UNSUPPORTED_DIALECT, ran="unsupported")
            context.policy = outer
            return context
        heard = len(context.verdicts)
        try:
            if self.waits_for_people and not policy.waits_for_people:  # then nobody sets a deadline from outside
                async with asyncio.timeout(policy.default_deadline_s):
                    result = await policy.apply(context)
            else:
                result = await policy.apply(context)
        except PolicyDenied as denied:
            denied.policy = denied.policy or context.policy
            raise
        except Exception as error:  # isolation: the chain's on_error decides, and should know who failed
            fault = _named(error, context.policy)
            context.policy = outer
            raise fault from error
        if type(result) is not TransactionContext:
            raise NestedFault(Reason.POLICY_JUNK, f"{child.name}: apply returned {type(result).__name__}")
        if len(result.verdicts) == heard:
            result.policy = f"{outer}/{child.name}"
            result.verdict("allow", Reason.PASSED)
        result.policy = outer
        return result

    def stream(self, child: Child, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        """A streamed answer through one nested policy, under its own name."""
        view = context.view(f"{context.policy}/{child.name}")
        policy = child.policy
        policy.on_error = self.on_error
        if policy.operations is not None and context.operation not in policy.operations:
            view.verdict("allow", Reason.UNSUPPORTED_DIALECT, ran="unsupported")
            return events
        return _stream(policy, view, events)


async def _stream(
    policy: ControlPolicy[Any], view: TransactionContext, events: AsyncIterator[StreamEvent]
) -> AsyncIterator[StreamEvent]:
    try:
        async for event in policy.on_stream(view, events):
            yield event
    except PolicyDenied as denied:
        if not denied.policy:
            denied.policy = view.policy
            if not any(verdict.policy == view.policy and verdict.action == "deny" for verdict in view.verdicts):
                view.verdict("deny", denied.reason, str(denied), score=denied.score)
        raise
    except Exception as error:  # isolation: the chain's on_error decides, and should know who failed
        raise _named(error, view.policy) from error
    said = [verdict.policy for verdict in view.verdicts if verdict.stage is not Stage.REQUEST]
    if not any(name == view.policy or name.startswith(f"{view.policy}/") for name in said):
        view.verdict("allow", Reason.PASSED)


def _named(error: Exception, policy: str) -> Exception:
    """The same fault with the nested policy's name; what is no fault of a policy stays what it is."""
    name = policy.partition("/")[2]
    if isinstance(error, NestedFault) or (isinstance(error, LuthienError) and not isinstance(error, PolicyFault)):
        return error
    if isinstance(error, PolicyFault):
        return NestedFault(error.reason, f"{name}: {error}")
    if isinstance(error, TimeoutError):
        return NestedFault(Reason.POLICY_TIMEOUT, f"{name}: it did not finish in time")
    return NestedFault(Reason.POLICY_ERROR, f"{name}: {type(error).__name__}: {error}"[:500])
