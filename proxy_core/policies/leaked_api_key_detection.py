"""Refuses requests that hold something that looks like a credential, before anything is sent.

Every text of the request is searched: what is said, what tools answered, and the arguments of tool calls. A body that
cannot be read is searched as it is. What was found is named by its kind, never shown.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from proxy_core.detectors.secrets import FORMATS, TextFormats
from proxy_core.policies.base import ControlPolicy, PolicyDenied, PolicyParams
from proxy_core.policies.patterns import Pattern
from proxy_core.policies.text_policy import TEXT_OPERATIONS
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing import TextPart, UnreadableBody

DEFAULT_PATTERNS: tuple[tuple[str, str], ...] = (
    ("plain_openai_key", r"\bsk-[a-zA-Z0-9]{48}"),
    ("slack_bot_token", r"\bxoxb-[a-zA-Z0-9\-]{50,}"),
    ("fine_grained_github_pat", r"\bgithub_pat_[a-zA-Z0-9]{22}_[a-zA-Z0-9]{59}"),
    # `sk_key` takes any word of some length after `sk-`: right where it is only blanked, too much where it refuses
    *((kind, pattern) for kind, pattern in FORMATS if kind != "sk_key"),
)
"""What is searched for where the configuration says nothing: kind and pattern."""
_DEFAULT_FORMATS = TextFormats(DEFAULT_PATTERNS)


class LeakedApiKeyDetectionParams(PolicyParams):
    patterns: list[Annotated[str, Field(min_length=1, max_length=5_000)]] = Field(default_factory=list, max_length=1_000)
    """Regular expressions of what must not be sent; empty for the formats of well-known keys."""

    @field_validator("patterns")
    @classmethod
    def _compile(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            Pattern(pattern)
        return patterns


class LeakedApiKeyDetectionPolicy(ControlPolicy[LeakedApiKeyDetectionParams]):
    """Refuses requests whose texts hold something that looks like an API key."""

    params_model = LeakedApiKeyDetectionParams
    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.REQUEST})
    operations: ClassVar[frozenset[Operation] | None] = TEXT_OPERATIONS

    def __init__(self, params: LeakedApiKeyDetectionParams) -> None:
        super().__init__(params)
        self._patterns = [(f"pattern {at}", Pattern(pattern)) for at, pattern in enumerate(params.patterns, 1)]

    async def apply(self, context: TransactionContext) -> TransactionContext:
        try:
            context.edit_request_texts(self._search)
        except UnreadableBody:
            self._search(TextPart("", "text", context.request_body.decode("utf-8", "replace"), -1))
            context.verdict("allow", Reason.UNSUPPORTED_DIALECT, "the body was searched as it is", ran="partial")
        return context

    def _search(self, part: TextPart) -> None:
        """Raise PolicyDenied where the text holds a credential."""
        if self._patterns:
            kind = next((kind for kind, pattern in self._patterns if pattern.found_in(part.text)), None)
        else:
            found = _DEFAULT_FORMATS.search(part.text)
            kind = None if found is None else found.lastgroup
        if kind is not None:
            where = "" if part.message < 0 else f" in message {part.message + 1}"
            raise PolicyDenied(
                Reason.SECRET_LEAKED,
                f"the request holds what looks like a credential{where} ({kind}); take it out and send the request again",
                status=403,
            )
