"""Trying a policy on recorded bodies: `luthien policies test`. Nothing is sent anywhere.

A sample is a request body, a response body, a streamed response (SSE or NDJSON), or a JSON object with `request` and
`response`. Which operation it belongs to is read from its form, or told.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from proxy_core.errors import ConfigurationError, LuthienError, UpstreamUnreachable
from proxy_core.policies.base import ControlPolicy
from proxy_core.policies.registry import nearest
from proxy_core.policies.sample_bodies import STREAMED, answer_stream
from proxy_core.policies.testing import FakeServices, Outcome, context_for, run_request, run_response
from proxy_core.transaction import WholeResponse
from proxy_core.verdicts import Stage, Verdict
from proxy_core.wire.codec import codec_for
from proxy_core.wire.conversation import TextBlock
from proxy_core.wire.dialects import Operation

PIECE_CHARS = 5
"""A whole response that is tried as a stream is cut into pieces of this length."""
READ = tuple(one for one in Operation if codec_for(one) is not None)


class Sample(Struct, frozen=True):
    """What a policy is tried on."""

    operation: Operation
    request: bytes | None
    response: bytes | None
    stream: bool
    """Whether the response is a stream."""


class Phase(Struct, frozen=True):
    """What the policy did to the request, or to the response."""

    stage: str
    before: bytes
    after: bytes
    verdicts: list[Verdict]
    stream: bool = False
    denied: str = ""


class Trial(Struct, frozen=True):
    """What a policy did to a sample."""

    operation: Operation
    phases: list[Phase]

    def as_json(self) -> dict[str, Any]:
        """JSON values; bodies that are JSON stand as such, others as text."""
        phases = [
            {
                "stage": phase.stage,
                "stream": phase.stream,
                "changed": phase.before != phase.after,
                "before": _readable(phase.before),
                "after": _readable(phase.after),
                "denied": phase.denied or None,
                "verdicts": msgspec.to_builtins(phase.verdicts),
            }
            for phase in self.phases
        ]
        return {"operation": self.operation.value, "phases": phases}


async def run_trial(policy: ControlPolicy[Any], sample: Sample) -> Trial:
    """Run the policy on the request, then on the response. Raises ConfigurationError where the sample is not enough."""
    services = FakeServices()
    if sample.response is not None:
        kind = b"text/event-stream" if sample.stream else b"application/json"
        whole = WholeResponse(status=200, headers=[(b"content-type", kind)], body=sample.response, upstream="sample")
        services.answers.extend([whole] * 100)
    context = context_for(sample.operation, sample.request, services=services, stream=sample.stream)
    phases: list[Phase] = []
    if sample.request is not None or policy.sends:
        before = context.request_body
        try:
            outcome = await run_request(policy, context)
        except UpstreamUnreachable:
            raise ConfigurationError("this policy gets the answer itself; give a file with a request and a response") from None
        context = outcome.context
        asked = [verdict for verdict in outcome.verdicts if verdict.stage is Stage.REQUEST]
        phases.append(_phase("request", before, outcome.body, asked, outcome))
        if context.response_status is not None and sample.response is not None:
            said = [verdict for verdict in outcome.verdicts if verdict.stage is not Stage.REQUEST]
            phases.append(_phase("response", sample.response, context.response_body, said, outcome))
        if outcome.denied is not None or context.response_status is not None:
            return Trial(sample.operation, phases)
    if sample.response is not None:
        try:
            outcome = await run_response(policy, context, body=sample.response, stream=sample.stream, chunk_bytes=64)
        except LuthienError as error:
            raise ConfigurationError(f"the response cannot be tried: {error}") from error
        phases.append(_phase("response", sample.response, outcome.body, outcome.verdicts, outcome, stream=sample.stream))
    return Trial(sample.operation, phases)


def _phase(stage: str, before: bytes, after: bytes, verdicts: list[Verdict], outcome: Outcome, *, stream: bool = False) -> Phase:
    return Phase(stage, before, after, verdicts, stream, str(outcome.denied) if outcome.denied is not None else "")


# -- reading samples --------------------------------------------------------------------------------------------------


def read_sample(content: bytes, *, operation: str = "", stream: bool = False) -> Sample:
    """What a file holds. Raises ConfigurationError where nobody can tell."""
    told = _operation(operation) if operation else None
    content = content.removeprefix(b"\xef\xbb\xbf")
    events = _events(content)
    if events is not None:
        found = told or _of_response(events[0]) or _unknown()
        return Sample(found, None, content, True)
    whole = _json(content)
    if not isinstance(whole, dict):
        raise ConfigurationError("the file is neither a JSON object nor a stream (SSE or NDJSON)")
    request, response = whole, None
    if isinstance(whole.get("request"), dict) and "model" not in whole:
        request, response = whole["request"], whole.get("response")
        told = told or (_operation(str(whole["operation"])) if "operation" in whole else None)
    elif _of_response(whole) is not None and "messages" not in whole:
        found = told or _of_response(whole) or _unknown()
        return _streamed(Sample(found, None, content, False), stream)
    found = told or _of_request(request) or _unknown()
    body = content if request is whole else msgspec.json.encode(request)
    if isinstance(response, str):
        return Sample(found, body, response.encode(), True)
    sample = Sample(found, body, None if response is None else msgspec.json.encode(response), False)
    return _streamed(sample, stream)


def _streamed(sample: Sample, stream: bool) -> Sample:
    """With `stream`, the same response as a stream."""
    if not stream or sample.response is None:
        return sample
    codec = codec_for(sample.operation)
    answer = codec.read_response(sample.response) if codec is not None else None
    if sample.operation not in STREAMED or answer is None or not all(isinstance(one, TextBlock) for one in answer.blocks):
        raise ConfigurationError("only a response of text alone can be made a stream; give the file as SSE or NDJSON")
    text = answer.text
    pieces = [text[at : at + PIECE_CHARS] for at in range(0, len(text), PIECE_CHARS)]
    return msgspec.structs.replace(sample, response=answer_stream(sample.operation, pieces), stream=True)


def _operation(word: str) -> Operation:
    names = [one.value for one in READ]
    if word in names:
        return Operation(word)
    near = nearest(word, names)
    raise ConfigurationError(
        f"no operation is called {word!r}; " + (f"did you mean {near}?" if near else f"use {', '.join(names)}")
    )


def _unknown() -> Operation:
    names = ", ".join(one.value for one in READ)
    raise ConfigurationError(f"the file does not say which API it belongs to; add --operation with one of {names}")


def _json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _events(content: bytes) -> list[dict[str, Any]] | None:
    """The JSON objects of a stream; None where it is none."""
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    data = [line.removeprefix(b"data:") for line in lines if line.startswith(b"data:")]
    if not data and len(lines) > 1 and all(line.startswith(b"{") and line.endswith(b"}") for line in lines[:2]):
        data = lines
    found = [event for line in data if isinstance(event := _json(line), dict)]
    return found or None


def _of_request(body: dict[str, Any]) -> Operation | None:
    tools = [tool for tool in body.get("tools") or () if isinstance(tool, dict)] if isinstance(body.get("tools"), list) else []
    if "messages" in body:
        claude = str(body.get("model", "")).startswith("claude") or "system" in body or "thinking" in body
        if claude or any("input_schema" in tool for tool in tools):
            return Operation.MESSAGES
        return Operation.OLLAMA_CHAT if {"options", "keep_alive", "format"} & body.keys() else Operation.CHAT
    if "input" in body:
        embeds = "embed" in str(body.get("model", "")) or {"dimensions", "encoding_format"} & body.keys()
        return Operation.EMBEDDINGS if embeds else Operation.RESPONSES
    if "prompt" in body:
        ollama = {"options", "keep_alive", "system", "template", "raw"} & body.keys()
        return Operation.OLLAMA_GENERATE if ollama else Operation.COMPLETIONS
    return None


def _of_response(body: dict[str, Any]) -> Operation | None:
    kind = str(body.get("type", ""))
    if kind in ("message", "message_start"):
        return Operation.MESSAGES
    if kind.startswith("response.") or body.get("object") == "response":
        return Operation.RESPONSES
    if "done" in body and isinstance(body.get("message"), dict):
        return Operation.OLLAMA_CHAT
    if "done" in body and "response" in body:
        return Operation.OLLAMA_GENERATE
    choices = body.get("choices")
    if isinstance(choices, list):
        first = choices[0] if choices and isinstance(choices[0], dict) else {}
        return Operation.COMPLETIONS if "text" in first else Operation.CHAT
    return None


def _readable(body: bytes) -> Any:
    found = _json(body)
    return body.decode("utf-8", "backslashreplace") if found is None else found
