"""Asks for another model than the client did, by an exact match of the name; everything else keeps its bytes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import Field

from proxy_core.policies.base import ControlPolicy, PolicyParams
from proxy_core.policies.text_policy import TEXT_OPERATIONS
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing import UnreadableBody


class _Request(msgspec.Struct):
    model: Any = None


_request = msgspec.json.Decoder(_Request)


class ModelNameReplacementParams(PolicyParams):
    model_mapping: dict[str, Annotated[str, Field(min_length=1, max_length=500)]] = Field(default_factory=dict, max_length=10_000)
    """For each model that a client may ask for, the model that is asked for in its place."""


class ModelNameReplacementPolicy(ControlPolicy[ModelNameReplacementParams]):
    """Asks for another model than the client did."""

    params_model = ModelNameReplacementParams
    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.REQUEST})
    operations: ClassVar[frozenset[Operation] | None] = TEXT_OPERATIONS

    async def apply(self, context: TransactionContext) -> TransactionContext:
        try:
            model = _request.decode(context.request_body).model
            wanted = self.params.model_mapping.get(model) if isinstance(model, str) else None
            if wanted is None or wanted == model:
                return context
            context.set_request_field("model", wanted)
        except (msgspec.MsgspecError, UnreadableBody, UnicodeError, RecursionError) as error:
            context.verdict("allow", Reason.UNSUPPORTED_DIALECT, f"the body cannot be read: {error}", ran="unsupported")
            return context
        context.verdict("modify", Reason.MODEL_RENAMED, from_model=model[:500], to_model=wanted)
        return context
