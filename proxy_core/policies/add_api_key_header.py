"""Puts the key of the environment variable `OPENAI_API_KEY` into requests, in place of the client's."""

from __future__ import annotations

import os
from typing import ClassVar

from proxy_core.policies.add_api_key import put_key
from proxy_core.policies.base import ControlPolicy, PolicyParams
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage

VARIABLE = "OPENAI_API_KEY"


class AddApiKeyHeaderPolicy(ControlPolicy[PolicyParams]):
    """Puts the key in `OPENAI_API_KEY` into requests, in place of the client's."""

    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.REQUEST})

    async def apply(self, context: TransactionContext) -> TransactionContext:
        put_key(context, os.environ.get(VARIABLE), f"the environment variable {VARIABLE}")
        return context
