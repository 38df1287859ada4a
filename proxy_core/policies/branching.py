"""One of several policies, by condition.

The first branch whose condition holds is taken; where none holds the default is, and where there is none nothing happens.
The branch chosen for the request is kept for its response.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import AliasChoices, ConfigDict, Field, field_validator, model_validator

from proxy_core.policies.base import PolicyParams, Release
from proxy_core.policies.conditions import Condition, evaluate, paths_of
from proxy_core.policies.nested import Child, Composite, NestedPolicy, build_children
from proxy_core.policies.transaction_paths import resolver
from proxy_core.routing.reasons import Reason
from proxy_core.settings import Settings
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.conversation import StreamEvent

NONE = -1
"""No branch was taken."""


MAX_DEPTH = 50
"""Conditions inside conditions, and so on."""


class Branch(PolicyParams):
    """A condition and what happens where it holds."""

    model_config = ConfigDict(populate_by_name=True)

    condition: Condition = Field(alias="if")
    """When the branch is taken."""
    then: NestedPolicy
    """The policy that runs."""

    @field_validator("condition", mode="before")
    @classmethod
    def _is_not_too_deep(cls, value: Any) -> Any:
        level, depth = [value], 0
        while level:
            level = [
                inner
                for one in level
                if isinstance(one, dict | list)
                for inner in (one.values() if isinstance(one, dict) else one)
            ]
            depth += 1
            if depth > 3 * MAX_DEPTH:
                raise ValueError(f"conditions are nested more than {MAX_DEPTH} deep")
        return value


class BranchingParams(PolicyParams):
    branches: list[Branch] = Field(default_factory=list)
    """In order; the first whose condition holds is taken."""
    default: NestedPolicy | None = Field(default=None, validation_alias=AliasChoices("default", "default_policy"))
    """The policy that runs where no condition holds."""

    @model_validator(mode="before")
    @classmethod
    def _takes_the_form_of_luthien_control(cls, value: Any) -> Any:
        """`cond_to_policy_map` has conditions, written as JSON text, for its keys."""
        if not isinstance(value, Mapping) or "cond_to_policy_map" not in value:
            return value
        found = dict(value)
        mapping = found.pop("cond_to_policy_map")
        if not isinstance(mapping, Mapping) or "branches" in found:
            raise ValueError("cond_to_policy_map has to be an object, and stands in place of branches")
        branches = []
        for text, policy in mapping.items():
            try:
                branches.append({"if": json.loads(text), "then": policy})
            except (ValueError, TypeError, RecursionError):
                raise ValueError(f"the key {str(text)[:60]!r} of cond_to_policy_map is no condition as JSON text") from None
        found["branches"] = branches
        return found


class BranchingPolicy(Composite[BranchingParams]):
    """Runs the first policy whose condition holds, else the default."""

    params_model: ClassVar[type[PolicyParams]] = BranchingParams

    def __init__(self, params: BranchingParams, children: tuple[Child, ...] = ()) -> None:
        super().__init__(params, children)
        wanted = {path for branch in params.branches for path in paths_of(branch.condition)}
        self.reads_response = any(path.startswith(("response.payload", "response.text", "response.stop")) for path in wanted)

    @classmethod
    def built(cls, params: BranchingParams, settings: Settings, place: str) -> Self:
        around = f"{place}." if place else ""
        nested = [branch.then for branch in params.branches]
        places = [f"{around}params.branches[{at}].then" for at in range(len(nested))]
        if params.default is not None:
            nested.append(params.default)
            places.append(f"{around}params.default")
        return cls(params, tuple(build_children(nested, settings, places)))

    def acts_on(self, stage: Stage, *, before_send: bool) -> bool:
        acts = super().acts_on(stage, before_send=before_send)
        return acts or (stage is Stage.REQUEST and before_send)  # where the branch is chosen

    def release_mode(self) -> Release:
        return Release.FULL if self.reads_response and not self.before_send else super().release_mode()

    async def apply(self, context: TransactionContext) -> TransactionContext:
        child = self._chosen(context)
        if self.sends:
            return await self._send(child, context)
        if child is not None and self.acts(child, context.stage):
            return await self.run(child, context)
        return context

    async def _send(self, child: Child | None, context: TransactionContext) -> TransactionContext:
        """Where some branch gets the answer itself, the others have to get it too."""
        if child is not None and child.policy.sends:
            return await self.run(child, context)
        if child is not None and child.policy.acts_on(Stage.REQUEST, before_send=True):
            context = await self.run(child, context)
        if context.response_status is None:
            whole = await context.services.send(context)
            context.set_response(whole.status, whole.headers, whole.body)
        context.stage = Stage.RESPONSE
        if child is not None and child.policy.acts_on(Stage.RESPONSE, before_send=True):
            context = await self.run(child, context)
        return context

    def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        child = self._chosen(context)
        if child is not None and self.acts(child, Stage.RESPONSE):
            return self.stream(child, context, events)
        return events

    def _chosen(self, context: TransactionContext) -> Child | None:
        """The policy of the branch that is taken, remembered from the request on."""
        key = ("branching", context.policy)
        at = context.data.get(key)
        if at is None:
            at = context.data[key] = self._first(context)
            if at == NONE:
                context.verdict("allow", Reason.NO_BRANCH)
            else:
                taken = f"branch {at + 1}" if at < len(self.params.branches) else "the default"
                context.verdict("allow", Reason.BRANCH_TAKEN, f"{taken}: {self.children[at].name}")
        return None if at == NONE else self.children[at]

    def _first(self, context: TransactionContext) -> int:
        resolve = resolver(context)
        for at, branch in enumerate(self.params.branches):
            if evaluate(branch.condition, resolve):
                return at
        return len(self.params.branches) if self.params.default is not None else NONE
