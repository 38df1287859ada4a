"""Puts the key of a chosen environment variable into requests, in place of the client's."""

from __future__ import annotations

import os
from typing import ClassVar

from pydantic import Field

from proxy_core.policies.add_api_key import put_key
from proxy_core.policies.base import ControlPolicy, PolicyParams
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage


class AddApiKeyHeaderFromEnvParams(PolicyParams):
    api_key_env_var_name: str = Field(min_length=1)
    """Name of the environment variable that holds the key; it is read at each request."""


class AddApiKeyHeaderFromEnvPolicy(ControlPolicy[AddApiKeyHeaderFromEnvParams]):
    """Puts the key of a chosen environment variable into requests, in place of the client's."""

    params_model = AddApiKeyHeaderFromEnvParams
    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.REQUEST})

    async def apply(self, context: TransactionContext) -> TransactionContext:
        variable = self.params.api_key_env_var_name
        put_key(context, os.environ.get(variable), f"the environment variable {variable}")
        return context
