"""Rephrases what is sent: by rules, by fixed words before and behind, or by asking a model.

The request as it was stays in `context.data["original_request"]`, as bytes. Rules change every text of the chosen roles, so a
conversation keeps its words from turn to turn. A model is asked once for each new text of a user; what it made of it is
remembered and said again where the text comes back as history.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar, Literal, Self

import msgspec
from pydantic import Field

from proxy_core.policies.base import ControlPolicy, PolicyParams
from proxy_core.policies.model_call import check_upstream
from proxy_core.policies.rephrase_rules import RephraseModel, RephraseRule, apply_rules, rephrased
from proxy_core.policies.text_policy import TEXT_OPERATIONS
from proxy_core.routing.reasons import Reason
from proxy_core.settings import Settings
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing import TextPart, UnreadableBody

_REMEMBERED = 1_000
"""Texts whose rephrasing is remembered."""
_SYSTEM_ROLES = ("system", "developer")
_UNASKED = frozenset({Operation.COUNT_TOKENS, Operation.EMBEDDINGS, Operation.OLLAMA_EMBED})
"""Requests for which no model is asked: what is remembered is used, nothing new is paid for."""


class _Messages(msgspec.Struct):
    messages: list[msgspec.Raw]


class RephraseRequestParams(PolicyParams):
    rules: list[RephraseRule] = Field(default_factory=list, max_length=1_000)
    """Replacements in the texts of `roles`, in order."""
    roles: list[Literal["user", "assistant", "system", "developer", "tool"]] = Field(default=["user"])
    """Whose texts the rules change."""
    prepend: str = Field(default="", max_length=100_000)
    """Put in front of what the user said last."""
    append: str = Field(default="", max_length=100_000)
    """Put behind what the user said last."""
    system_append: str = Field(default="", max_length=100_000)
    """Put behind the system prompt, or made one where there is none."""
    model: RephraseModel | None = None
    """A model that rewrites what the user said last: `{upstream, model, instructions, temperature, max_tokens}`."""


class RephraseRequestPolicy(ControlPolicy[RephraseRequestParams]):
    """Rephrases requests by rules, added words or a model."""

    params_model = RephraseRequestParams
    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.REQUEST})
    operations: ClassVar[frozenset[Operation] | None] = TEXT_OPERATIONS
    default_deadline_s: ClassVar[float] = 60.0

    def __init__(self, params: RephraseRequestParams) -> None:
        super().__init__(params)
        self._remembered: OrderedDict[bytes, str] = OrderedDict()

    @classmethod
    def built(cls, params: RephraseRequestParams, settings: Settings, place: str) -> Self:
        if params.model is not None:
            check_upstream(params.model.upstream, settings, f"{place}.params.model.upstream" if place else "model.upstream")
        return cls(params)

    async def apply(self, context: TransactionContext) -> TransactionContext:
        original = context.request_body
        try:
            texts: list[TextPart] = []
            context.edit_request_texts(lambda part: texts.append(part) if part.kind == "text" else None)
            asked = await self._asked(context, texts)
            replacements = self._edit(context, texts)
            system = self._append_to_system(context, texts) if self.params.system_append else False
        except UnreadableBody as error:
            context.request_body = original
            context.verdict("allow", Reason.UNSUPPORTED_DIALECT, str(error), ran="unsupported")
            return context
        if context.request_body is not original:
            context.data.setdefault("original_request", original)
            context.verdict(
                "modify",
                Reason.REQUEST_REPHRASED,
                replacements=replacements,
                system_appended=system,
                model=self.params.model.model if self.params.model is not None else None,
                asked=asked,
                original_length=len(original),
                transformed_length=len(context.request_body),
            )
        return context

    async def _asked(self, context: TransactionContext, texts: list[TextPart]) -> bool:
        """Whether a model had to be asked for what the user said last; what it said is remembered."""
        model = self.params.model
        last = next((part for part in reversed(texts) if part.last_user and part.text.strip()), None)
        if model is None or last is None or context.operation in _UNASKED or _digest(last.text) in self._remembered:
            return False
        said = await rephrased(context, model, last.text)
        self._remembered[_digest(last.text)] = said
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return True

    def _edit(self, context: TransactionContext, texts: list[TextPart]) -> int:
        """Change the texts; how many replacements the rules made."""
        params = self.params
        last = [at for at, part in enumerate(texts) if part.last_user]
        total = 0

        def edit(at: int, part: TextPart) -> str:
            nonlocal total
            text = part.text
            if params.model is not None and part.role == "user" and _digest(text) in self._remembered:
                self._remembered.move_to_end(_digest(text))
                text = self._remembered[_digest(text)]
            if part.role in params.roles:
                text, count = apply_rules(params.rules, text)
                total += count
            if last and at == last[0]:
                text = params.prepend + text
            if last and at == last[-1]:
                text += params.append
            return text

        context.edit_request_texts(_numbered(edit))
        return total

    def _append_to_system(self, context: TransactionContext, texts: list[TextPart]) -> bool:
        """Put words behind the system prompt; False where the operation has none."""
        words = self.params.system_append
        system = [(at, part.message) for at, part in enumerate(texts) if part.role in _SYSTEM_ROLES]
        if system:
            place = [at for at, message in system if message == system[0][1]][-1]
            context.edit_request_texts(_numbered(lambda at, part: part.text + words if at == place else None))
            return True
        operation = context.operation
        if operation in (Operation.MESSAGES, Operation.COUNT_TOKENS, Operation.OLLAMA_GENERATE):
            context.set_request_field("system", words.lstrip())
        elif operation is Operation.RESPONSES:
            context.set_request_field("instructions", words.lstrip())
        elif operation in (Operation.CHAT, Operation.OLLAMA_CHAT):
            try:
                history = msgspec.json.decode(context.request_body, type=_Messages).messages
            except (msgspec.MsgspecError, UnicodeError) as error:
                raise UnreadableBody(f"the body has no list of messages: {error}") from error
            context.set_request_field("messages", [{"role": "system", "content": words.lstrip()}, *history])
        else:
            return False
        return True


def _numbered(edit: Callable[[int, TextPart], str | None]) -> Callable[[TextPart], str | None]:
    """Give `edit` the number of each text of kind `text`, from 0; the others stay."""
    number = -1

    def numbered(part: TextPart) -> str | None:
        nonlocal number
        if part.kind != "text":
            return None
        number += 1
        return edit(number, part)

    return numbered


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
