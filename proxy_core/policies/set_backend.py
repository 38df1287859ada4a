"""Sends requests to a chosen upstream, whatever their path says.

Only configured upstreams can be reached; one that is not configured is a fault of the configuration, found before any
request. An upstream must understand the API that the client speaks: OpenAI's is understood by Ollama too, others only by
their own.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from proxy_core.errors import ConfigurationError, UnknownUpstream
from proxy_core.policies.base import ControlPolicy, PolicyFault, PolicyParams
from proxy_core.routing.reasons import Reason
from proxy_core.settings import Settings
from proxy_core.transaction import Route, TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Dialect


class SetBackendParams(PolicyParams):
    upstream: str | None = None
    """Name of a configured upstream."""
    backend_url: str | None = None
    """Or the root of one, as `https://api.openai.com`; a trailing `/v1` is understood."""
    reason: Literal["backend_set", "sensitive_keyword_match", "cost_prefer_local", "default"] = "backend_set"
    """The reason code of the route."""

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.upstream is None) == (self.backend_url is None):
            raise ValueError("give either 'upstream' or 'backend_url'")
        return self


class SetBackendPolicy(ControlPolicy[SetBackendParams]):
    """Sends requests to a chosen upstream."""

    params_model = SetBackendParams
    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.REQUEST})

    @classmethod
    def built(cls, params: SetBackendParams, settings: Settings, place: str) -> Self:
        """Refuse an upstream that is not configured. Raises ConfigurationError."""
        around = f"{place}.params" if place else "params"
        known = ", ".join(settings.upstreams)
        if params.upstream is not None and params.upstream not in settings.upstreams:
            raise ConfigurationError(f"{around}.upstream: no upstream is called '{params.upstream}'; there are {known}")
        if params.backend_url is not None:
            wanted = _root(params.backend_url)
            if all(_root(one.base_url) != wanted for one in settings.upstreams.values()):
                raise ConfigurationError(f"{around}.backend_url: no upstream has this base_url; add one under 'upstreams'")
        return cls(params)

    async def apply(self, context: TransactionContext) -> TransactionContext:
        name = self.params.upstream
        if name is None:
            name = context.services.upstream_at(_root(self.params.backend_url or ""))
        if name is None:
            raise PolicyFault(Reason.POLICY_ERROR, "no configured upstream has the URL that requests should go to")
        try:
            api = context.services.upstream_dialect(name)
        except UnknownUpstream as error:
            raise PolicyFault(Reason.POLICY_ERROR, f"no upstream is called '{name}'") from error
        if api is not context.dialect and not (context.dialect is Dialect.OPENAI and api is Dialect.OLLAMA):
            raise PolicyFault(
                Reason.UNSUPPORTED_DIALECT,
                f"upstream '{name}' speaks the API of {api.value}, and the client that of {context.dialect.value}",
            )
        before = context.route.upstream
        reason = Reason(self.params.reason)
        context.route = Route(name, reason, api)
        context.verdict("route", reason, upstream=name, instead_of=before)
        return context


def _root(url: str) -> str:
    """The URL in the form in which upstreams are configured."""
    root = url.strip().rstrip("/")
    for tail in ("/v1", "/api"):
        root = root.removesuffix(tail)
    return root
