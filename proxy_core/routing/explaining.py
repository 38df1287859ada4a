"""Why a request goes where it goes: the decision of the rules, for a request that nobody sends."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from proxy_core.errors import BadRequest
from proxy_core.routing.decision import RuleSaid
from proxy_core.routing.router import Router
from proxy_core.routing.upstreams import Upstreams
from proxy_core.sessions.identity import tags_of
from proxy_core.wire.dialects import Endpoint, Operation, UnsafePath, find_endpoint
from proxy_core.wire.glance import glance

USUAL_PATH = "/v1/chat/completions"
_INPUT = (Operation.RESPONSES, Operation.EMBEDDINGS, Operation.OLLAMA_EMBED)
_PROMPT = (Operation.COMPLETIONS, Operation.OLLAMA_GENERATE)


class Explanation(Struct, frozen=True, kw_only=True):
    """Where a request would go, and what every rule says of it."""

    upstream: str
    """Empty where it would be refused."""
    base_url: str
    model: str
    """As the upstream would be asked for it."""
    reasons: tuple[str, ...]
    rule: str
    """The rule that decides: `explicit`, `model`, `sensitivity`, `tag`, `cost` or `default`."""
    considered: tuple[RuleSaid, ...]
    """What every rule says, in order."""
    rules_digest: str
    """Differs where any rule differs."""


def explain(router: Router, upstreams: Upstreams, *, path: str, body: bytes, tags: str = "") -> Explanation:
    """Ask the rules about a request to `path`; `tags` are written as in `x-luthien-tags`.

    Policies are not asked: they may change the request, or choose an upstream, before the rules see it. Raises BadRequest.
    """
    endpoint = endpoint_of(path, upstreams)
    headers = [(b"x-luthien-tags", tags.encode("latin-1", "replace"))]
    model = glance(body).model
    question = router.question(endpoint, headers=headers, body=body, model=model, tags=tags_of(headers))
    decision = router.decide(question, endpoint, body, router.rules)
    chosen = upstreams.by_name.get(decision.upstream)
    sent = glance(router.with_model(chosen, endpoint, body, model)).model if chosen is not None else ""
    return Explanation(
        upstream=decision.upstream,
        base_url=chosen.base_url if chosen is not None else "",
        model=sent,
        reasons=decision.reasons,
        rule=decision.rule,
        considered=decision.considered,
        rules_digest=router.rules.digest,
    )


def endpoint_of(path: str, upstreams: Upstreams) -> Endpoint:
    """The endpoint that a path names. Raises BadRequest."""
    try:
        endpoint = find_endpoint(path, False, upstreams.names)
    except UnsafePath as error:
        raise BadRequest(str(error)) from error
    if endpoint is None:
        raise BadRequest(f"luthien knows no API at {path[:200]!r}")
    return endpoint


def request_of(endpoint: Endpoint, model: str, prompt: str) -> bytes:
    """A request in which a user says `prompt`, in the form of the endpoint."""
    said: dict[str, object] = {"messages": [{"role": "user", "content": prompt}]}
    if endpoint.operation in _INPUT:
        said = {"input": prompt}
    elif endpoint.operation in _PROMPT:
        said = {"prompt": prompt}
    return msgspec.json.encode({"model": model, **said})
