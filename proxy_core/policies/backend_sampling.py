"""Asks for several answers to the same request, side by side, and keeps them for a later policy to choose from.

Every sample is asked for with the same bytes, so a prompt cache serves all but the first. The first good answer becomes the
transaction's; all good ones are in `context.data["backend_samples"]`, in the order in which they were asked for. The client
sees the usage of the answer it gets; the cost of all is the transaction's.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from pydantic import Field

from proxy_core.errors import AdmissionRefused, UpstreamError
from proxy_core.policies.base import ControlPolicy, PolicyParams, tunable
from proxy_core.routing.reasons import Reason
from proxy_core.tasks import spawn
from proxy_core.transaction import TransactionContext, WholeResponse
from proxy_core.wire.dialects import Operation
from proxy_core.wire.tolerant_json import as_object, plain, read

SAMPLES = "backend_samples"
"""Key of the good answers in `context.data`: a list of WholeResponse."""
_SAMPLED = frozenset(
    {
        Operation.CHAT,
        Operation.COMPLETIONS,
        Operation.RESPONSES,
        Operation.MESSAGES,
        Operation.OLLAMA_CHAT,
        Operation.OLLAMA_GENERATE,
    }
)


class BackendSamplingParams(PolicyParams):
    samples: int = tunable(3, ge=2, le=16, step=1)
    """Answers that are asked for."""
    concurrency: int = Field(default=16, ge=1, le=16)
    """How many are asked for at once."""
    keep_first_on_error: bool = True
    """Whether the good answers are enough where others failed; else one failure fails the transaction."""
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    """Temperature put into the requests; None leaves what the client chose, of which 0 gives the same answer each time."""


class BackendSamplingPolicy(ControlPolicy[BackendSamplingParams]):
    """Asks for several answers to each request and keeps them all."""

    params_model: ClassVar[type[PolicyParams]] = BackendSamplingParams
    sends: ClassVar[bool] = True
    default_deadline_s: ClassVar[float] = 600.0

    async def apply(self, context: TransactionContext) -> TransactionContext:
        """Send and wait for all.

        Raises UpstreamError or AdmissionRefused where no answer is good, or one is not and all should be.
        """
        if context.shadow:
            context.verdict("allow", Reason.NOT_APPLICABLE, "a copy sends nothing", ran="skipped")
            return context
        if context.operation not in _SAMPLED:
            answer = await context.services.send(context)
            context.set_response(answer.status, answer.headers, answer.body)
            context.verdict("allow", Reason.NOT_APPLICABLE, "there is nothing to choose between", ran="skipped")
            return context
        if self.params.temperature is not None:
            _put_temperature(context, self.params.temperature)
        wanted = self.params.samples
        results = await _all(context, wanted, self.params.concurrency)
        answers = [one for one in results if isinstance(one, WholeResponse)]
        good = [one for one in answers if one.status == 200]
        errors = [one for one in results if isinstance(one, Exception)]
        failed = wanted - len(good)
        if errors and (not answers or (failed and not self.params.keep_first_on_error)):
            raise errors[0]
        chosen = good[0] if good and (not failed or self.params.keep_first_on_error) else _first_bad(answers)
        context.data[SAMPLES] = good
        context.set_response(chosen.status, chosen.headers, chosen.body)
        costs = [one.cost_usd for one in answers]
        known = [cost for cost in costs if cost is not None]
        context.verdict(
            "allow",
            Reason.SAMPLES_TAKEN,
            f"{len(good)} of {wanted} answers" + (f"; {errors[0]}" if errors else ""),
            ran="partial" if failed else "ran",
            samples=wanted,
            good=len(good),
            statuses=[one.status for one in answers],
            costs_usd=costs,
            cost_usd=sum(known) if len(known) == len(costs) else None,
            ms=[one.ms for one in answers],
        )
        return context


def _first_bad(answers: list[WholeResponse]) -> WholeResponse:
    """The answer that says what went wrong."""
    return next(one for one in answers if one.status != 200)


async def _all(
    context: TransactionContext, wanted: int, concurrency: int
) -> list[WholeResponse | UpstreamError | AdmissionRefused]:
    """All answers, in the order in which they were asked for; an error in place of one that failed."""
    limit = asyncio.Semaphore(concurrency)

    async def one() -> WholeResponse | UpstreamError | AdmissionRefused:
        async with limit:
            try:
                return await context.services.send(context)
            except (UpstreamError, AdmissionRefused) as error:
                return error

    tasks = [spawn(one(), name=f"sample {number + 1} of {context.transaction_id}") for number in range(wanted)]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()


def _put_temperature(context: TransactionContext, temperature: float) -> None:
    if context.operation in (Operation.OLLAMA_CHAT, Operation.OLLAMA_GENERATE):
        options = as_object(as_object(read(context.request_body, plain)[0]).get("options"))
        context.set_request_field("options", {**options, "temperature": temperature})
    else:
        context.set_request_field("temperature", temperature)
