"""Rephrases what a model answers: by rules, by fixed words before and behind, or by asking another model.

The answer's text as it was stays in `context.data["original_response"]`. Tool calls and thinking are left alone. Rules that are
no regular expressions, and words in front, let a stream flow; a regular expression, words behind and a model need the
whole answer first. A model is asked first, then the rules apply, in order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Self

from pydantic import Field

from proxy_core.policies.base import PolicyParams, Release
from proxy_core.policies.model_call import check_upstream
from proxy_core.policies.rephrase_rules import RephraseModel, RephraseRule, apply_rules, rephrased
from proxy_core.policies.string_replacement import Replacer
from proxy_core.policies.text_policy import TextCounts, TextPolicy, TextTransducer, check_length
from proxy_core.routing.reasons import Reason
from proxy_core.settings import Settings
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.conversation import Block, StreamEvent, TextBlock, TextDelta
from proxy_core.wire.editing import UnreadableBody


class RephraseResponseParams(PolicyParams):
    rules: list[RephraseRule] = Field(default_factory=list, max_length=1_000)
    """Replacements in the texts of the answer, in order."""
    prepend: str = Field(default="", max_length=100_000)
    """Put in front of the answer's first text."""
    append: str = Field(default="", max_length=100_000)
    """Put behind the answer's last text."""
    model: RephraseModel | None = None
    """A model that rewrites the answer's text: `{upstream, model, instructions, temperature, max_tokens}`."""


class RephraseResponsePolicy(TextPolicy[RephraseResponseParams]):
    """Rephrases answers by rules, added words or a model."""

    params_model = RephraseResponseParams
    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.RESPONSE})
    reason: ClassVar[Reason] = Reason.RESPONSE_REPHRASED
    default_deadline_s: ClassVar[float] = 60.0

    @classmethod
    def built(cls, params: RephraseResponseParams, settings: Settings, place: str) -> Self:
        if params.model is not None:
            check_upstream(params.model.upstream, settings, f"{place}.params.model.upstream" if place else "model.upstream")
        return cls(params)

    @property
    def _flows(self) -> bool:
        params = self.params
        return params.model is None and not params.append and not any(rule.regex for rule in params.rules)

    def release_mode(self) -> Release:
        return Release.TAIL if self._flows else Release.FULL

    async def apply(self, context: TransactionContext) -> TransactionContext:
        if context.response_status is None or context.response_status >= 400:
            return context
        before: list[str] = []

        def collect(block: Block) -> None:
            if type(block) is TextBlock:
                before.append(block.text)

        try:
            context.edit_answer(collect)
            after, count = await self._rephrase(context, before)
            following = iter(after)

            def edit(block: Block) -> list[Block] | None:
                if type(block) is not TextBlock:
                    return None
                text = next(following)
                return None if text == block.text else [TextBlock(text)] if text else []

            if after != before:
                context.edit_answer(edit)
                self._say(context, before, after, count)
        except UnreadableBody as error:
            context.verdict("allow", Reason.UNSUPPORTED_DIALECT, str(error), ran="unsupported")
        return context

    async def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        if self._flows:
            original: list[str] = []
            context.data[self, "original"] = original
            async for event in super().on_stream(context, _recorded(events, original)):
                yield event
            return
        held = [event async for event in events]
        texts: dict[int, list[str]] = {}
        for event in held:
            if isinstance(event, TextDelta):
                texts.setdefault(event.index, []).append(event.text)
        before = ["".join(pieces) for pieces in texts.values()]
        after, count = await self._rephrase(context, before)
        if after != before:
            self._say(context, before, after, count)
        changed = {index: text for index, old, text in zip(texts, before, after, strict=True) if text != old}
        for event in held:
            if not isinstance(event, TextDelta) or event.index not in changed:
                yield event
            elif text := changed[event.index]:
                changed[event.index] = ""
                yield TextDelta(event.index, text)

    def transducer(self, context: TransactionContext) -> TextTransducer:
        return _Rephraser(self.params.rules, context.data.setdefault((self, "prepend"), [self.params.prepend]))

    def report(self, context: TransactionContext, counts: TextCounts) -> None:
        context.data.setdefault("original_response", "".join(context.data.pop((self, "original"), ())))
        context.verdict(
            "modify",
            self.reason,
            ran="partial" if counts.partial else "ran",
            replacements=sum(one.replacements for one in counts.changed if isinstance(one, _Rephraser)),
            model=None,
            original_length=counts.before,
            transformed_length=counts.after,
        )

    async def _rephrase(self, context: TransactionContext, texts: Sequence[str]) -> tuple[list[str], int]:
        """The new texts, one for each, empty where it goes; and how many replacements the rules made."""
        after = list(texts)
        params = self.params
        whole = "\n\n".join(text for text in texts if text)
        if not whole.strip():
            return after, 0
        if params.model is not None:
            after = [await rephrased(context, params.model, whole), *[""] * (len(after) - 1)]
        total = 0
        for at, text in enumerate(after):
            after[at], count = apply_rules(params.rules, text)
            total += count
        there = [at for at, text in enumerate(texts if params.model is None else after[:1]) if text]
        if there:
            after[there[0]] = params.prepend + after[there[0]]
            after[there[-1]] += params.append
        return after, total

    def _say(self, context: TransactionContext, before: Sequence[str], after: Sequence[str], count: int) -> None:
        context.data.setdefault("original_response", "".join(before))
        context.verdict(
            "modify",
            self.reason,
            replacements=count,
            model=self.params.model.model if self.params.model is not None else None,
            original_length=sum(map(len, before)),
            transformed_length=sum(map(len, after)),
        )


class _Rephraser:
    """Applies literal rules to one text that comes in pieces, and puts words in front."""

    def __init__(self, rules: Sequence[RephraseRule], prepend: list[str]) -> None:
        self._replacer = Replacer([(rule.find, rule.replace) for rule in rules])
        self._prepend = prepend
        """Shared by the texts of one answer: the first of them takes it."""
        self._prepended = 0

    @property
    def replacements(self) -> int:
        return self._replacer.changes

    @property
    def changes(self) -> int:
        return self._replacer.changes + self._prepended

    def feed(self, text: str) -> str:
        out = self._replacer.feed(text)
        if text and self._prepend:
            words = self._prepend.pop()
            out = words + out
            self._prepended = 1 if words else 0
        return out

    def finish(self) -> str:
        return self._replacer.finish()


async def _recorded(events: AsyncIterator[StreamEvent], texts: list[str]) -> AsyncIterator[StreamEvent]:
    """The same events, their texts noted."""
    length = 0
    async for event in events:
        if type(event) is TextDelta:
            length += len(event.text)
            check_length(length)
            texts.append(event.text)
        yield event
