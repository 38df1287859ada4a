"""Asking a model from inside a policy: one question, one text, at an upstream that is configured.

The question goes through the gateway's own sending, so it meets the same limits, costs count as the transaction's, and the
upstream's own credential is used. What goes wrong is a PolicyFault: never an empty answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct
from pydantic import Field

from proxy_core.detectors.tool_arguments import read_arguments
from proxy_core.errors import AdmissionRefused, ConfigurationError, RateLimited, UnknownUpstream, UpstreamBusy, UpstreamError
from proxy_core.policies.base import PolicyFault, PolicyParams
from proxy_core.routing.reasons import Reason
from proxy_core.settings import Settings
from proxy_core.transaction import TransactionContext
from proxy_core.wire.codec import codec_for
from proxy_core.wire.dialects import Dialect, Operation


class ModelSpec(PolicyParams):
    """Which model is asked, and how."""

    upstream: str
    """Name of a configured upstream; its key is used."""
    model: str
    """Name of the model, as the upstream calls it."""
    temperature: float | None = Field(default=0.0, ge=0.0, le=2.0)
    """None leaves it to the model."""
    max_tokens: int = Field(default=256, ge=1, le=65_536)
    """Longest answer, in tokens."""


class Reply(Struct, frozen=True):
    """What a model said."""

    text: str
    cost_usd: float | None
    ms: float
    """Time until the whole answer was there."""


class ModelUnavailable(PolicyFault):
    """The model could not be asked. `final`: asking again would not help (unknown upstream, refused credential)."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(Reason.JUDGE_UNAVAILABLE, message)
        self.final = final


_OPERATIONS = {
    Dialect.OPENAI: (Operation.CHAT, b"/v1/chat/completions"),
    Dialect.ANTHROPIC: (Operation.MESSAGES, b"/v1/messages"),
    Dialect.OLLAMA: (Operation.OLLAMA_CHAT, b"/api/chat"),
}
_REASONING_MODEL = re.compile(r"^(?:o\d|gpt-5)")
"""Models that take `max_completion_tokens`, and no temperature."""
_FINAL = frozenset({400, 401, 402, 403, 404, 405, 413, 422})


async def ask(context: TransactionContext, spec: ModelSpec, *, system: str, user: str) -> str:
    """The model's text. Raises ModelUnavailable."""
    return (await reply(context, spec, system=system, user=user)).text


async def reply(context: TransactionContext, spec: ModelSpec, *, system: str, user: str) -> Reply:
    """The model's text, with what it cost. Raises ModelUnavailable."""
    try:
        dialect = context.services.upstream_dialect(spec.upstream)
    except UnknownUpstream as error:
        raise ModelUnavailable(str(error), final=True) from error
    operation, target = _OPERATIONS[dialect]
    body = msgspec.json.encode(_question(dialect, spec, system, user))
    try:
        answered = await context.services.send(context, upstream=spec.upstream, target=target, body=body)
    except UpstreamError as error:
        raise ModelUnavailable(f"{spec.model} at {spec.upstream}: {error}") from error
    except AdmissionRefused as error:
        later = isinstance(error, RateLimited | UpstreamBusy)
        raise ModelUnavailable(f"{spec.model} at {spec.upstream}: {error}", final=not later) from error
    except UnknownUpstream as error:
        raise ModelUnavailable(str(error), final=True) from error
    if answered.status != 200:
        raise ModelUnavailable(
            f"{spec.model} at {spec.upstream} answered with status {answered.status}", final=answered.status in _FINAL
        )
    codec = codec_for(operation)
    answer = codec.read_response(answered.body) if codec is not None else None
    if answer is None or answer.error is not None or (answer.problem is not None and not answer.blocks):
        what = answer.error.message if answer is not None and answer.error is not None else "its answer cannot be read"
        raise ModelUnavailable(f"{spec.model} at {spec.upstream}: {what[:300]}")
    return Reply(answer.text, answered.cost_usd, answered.ms)


T = TypeVar("T")


class Understood(Struct, Generic[T], frozen=True):
    """An answer that could be read."""

    value: T
    reply: Reply
    attempts: int
    """How often the model was asked."""


async def read_reply(
    context: TransactionContext,
    spec: ModelSpec,
    *,
    system: str,
    user: str,
    read: Callable[[str], T],
    max_retries: int,
    pause_s: float,
) -> Understood[T]:
    """Ask until `read` understands the answer; it raises ValueError where it does not.

    The pause before the model is asked again where it could not be reached is doubled each time. Raises the last fault:
    ModelUnavailable, or PolicyFault(JUDGE_UNREADABLE).
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            said = await reply(context, spec, system=system, user=user)
            return Understood(read(said.text), said, attempt)
        except ModelUnavailable as fault:
            if fault.final or attempt > max_retries:
                raise
            await asyncio.sleep(pause_s * 2 ** (attempt - 1))
        except ValueError as error:
            if attempt > max_retries:
                raise PolicyFault(Reason.JUDGE_UNREADABLE, f"{spec.model}: {error}") from error


def one_object(text: str) -> dict[str, Any]:
    """The JSON object that a text is, plain or in a code fence. Raises ValueError."""
    plain = text.strip()
    fenced = re.fullmatch(r"```[a-zA-Z]{0,10}\s*\n?(.*?)\n?\s*```", plain, re.DOTALL)
    read = read_arguments(fenced[1] if fenced else plain)
    if read.problem is not None or not isinstance(read.value, dict):
        raise ValueError("the model's answer is not a JSON object")
    return read.value


def _question(dialect: Dialect, spec: ModelSpec, system: str, user: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": spec.model}
    turn = {"role": "user", "content": user}
    if dialect is Dialect.ANTHROPIC:
        fields |= {"max_tokens": spec.max_tokens, "messages": [turn]} | ({"system": system} if system else {})
        return fields | ({} if spec.temperature is None else {"temperature": spec.temperature})
    fields["messages"] = [{"role": "system", "content": system}, turn] if system else [turn]
    if dialect is Dialect.OLLAMA:
        options: dict[str, Any] = {"num_predict": spec.max_tokens}
        if spec.temperature is not None:
            options["temperature"] = spec.temperature
        return fields | {"stream": False, "options": options}
    if _REASONING_MODEL.match(spec.model):
        return fields | {"max_completion_tokens": spec.max_tokens}
    fields["max_tokens"] = spec.max_tokens
    return fields | ({} if spec.temperature is None else {"temperature": spec.temperature})


def check_upstream(name: str, settings: Settings, place: str) -> None:
    """Raise ConfigurationError where no upstream is called `name`; `place` names the parameter."""
    if name not in settings.upstreams:
        raise ConfigurationError(f"{place}: no upstream is called '{name}'; there are {', '.join(settings.upstreams)}")
