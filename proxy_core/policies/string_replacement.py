"""Replaces strings in what a client asks, in what a model answers, or in both.

The replacements are applied in order, each to the text as the one before left it, exactly as on the whole text: a stream
keeps back only what could still become a match, so the result is the same wherever its pieces are cut. Thinking, tool calls
and images are left alone.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from proxy_core.policies.base import PolicyParams
from proxy_core.policies.text_policy import TextPolicy, TextTransducer, check_length
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.editing import TextPart

Pair = tuple[Annotated[str, Field(min_length=1, max_length=10_000)], Annotated[str, Field(max_length=100_000)]]


class StringReplacementParams(PolicyParams):
    replacements: list[Pair] = Field(max_length=1_000)
    """Pairs of a string and what stands in its place, applied in order."""
    match_capitalization: bool = False
    """Whether the string is found in any capitalisation, and what stands in its place takes over the one found."""
    apply_to: Literal["request", "response", "both"] = "response"
    """Where it replaces: in the texts of requests, of answers, or of both."""


class StringReplacementPolicy(TextPolicy[StringReplacementParams]):
    """Replaces strings in requests or answers, streams included."""

    params_model = StringReplacementParams
    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.REQUEST, Stage.RESPONSE})

    def acts_on(self, stage: Stage, *, before_send: bool) -> bool:
        if stage is Stage.REQUEST:
            return before_send and self.params.apply_to != "response"
        return stage is Stage.RESPONSE and self.params.apply_to != "request"

    def request_text(self, context: TransactionContext, part: TextPart) -> str | None:
        if part.kind != "text":
            return None
        return replaced(part.text, self.params.replacements, self.params.match_capitalization)[0]

    def changes_of(self, before: str, after: str) -> int:
        return replaced(before, self.params.replacements, self.params.match_capitalization)[1]

    def transducer(self, context: TransactionContext) -> TextTransducer:
        return Replacer(self.params.replacements, self.params.match_capitalization)


def replaced(text: str, pairs: list[Pair], match_capitalization: bool) -> tuple[str, int]:
    """The text with all pairs applied in order, and how many replacements changed something."""
    replacer = Replacer(pairs, match_capitalization)
    return replacer.feed(text) + replacer.finish(), replacer.changes


class Replacer:
    """Applies pairs in order to one text that comes in pieces; each pair's output is the next one's input."""

    def __init__(self, pairs: list[Pair], match_capitalization: bool = False) -> None:
        make = _AnyCase if match_capitalization else _Exact
        self._steps = [make(old, new) for old, new in pairs]

    @property
    def changes(self) -> int:
        return sum(step.changes for step in self._steps)

    def feed(self, text: str) -> str:
        for step in self._steps:
            if step.held or step.first in text:
                text = step.feed(text)
        return text

    def finish(self) -> str:
        text = ""
        for step in self._steps:
            text = (step.feed(text) if text else "") + step.finish()
        return text

    @property
    def held_chars(self) -> int:
        """How much is held back now."""
        return sum(len(step.held) for step in self._steps)


class _Exact:
    """Replaces one string as `str.replace` does: leftmost first, without overlap.

    It holds back the longest end of the text that begins the string without being all of it. Whatever match comes next
    starts there or later, so what stands before it may go.
    """

    __slots__ = ("_begin", "_new", "_old", "_reach", "changes", "first", "held")

    def __init__(self, old: str, new: str) -> None:
        self._old = old
        self._new = new
        self._begin = old[0]
        self.first = old[0]
        """A piece without it passes where nothing is held back."""
        self._reach = len(old) - 1
        self.changes = 0
        self.held = ""

    def feed(self, text: str) -> str:
        if self.held:
            text = self.held + text
            self.held = ""
        old = self._old
        out = ""
        if old in text:
            count = text.count(old)
            check_length(len(text) + count * (len(self._new) - len(old)))
            if old != self._new:
                self.changes += count
            pieces = text.split(old)
            text = pieces.pop()
            out = self._new.join([*pieces, ""])
        start = self._tail(text, old)
        if start < len(text):
            self.held = text[start:]
            text = text[:start]
        return out + text if out else text

    def finish(self) -> str:
        held, self.held = self.held, ""
        return held

    def _tail(self, text: str, old: str) -> int:
        """Where the longest end of `text` begins that `old` begins with; the length of `text` where there is none."""
        at = text.find(self._begin, max(0, len(text) - self._reach)) if self._reach else -1
        while at >= 0:
            if old.startswith(text[at:]):
                return at
            at = text.find(self._begin, at + 1)
        return len(text)


class _AnyCase(_Exact):
    """The same in any capitalisation; what is put in takes over the capitalisation of what it replaces."""

    __slots__ = ("_folded",)

    def __init__(self, old: str, new: str) -> None:
        super().__init__(old, new)
        self._folded = folded(old)
        self._begin = self._folded[0]
        self.first = ""

    def feed(self, text: str) -> str:
        if self.held:
            text = self.held + text
            self.held = ""
        low = folded(text)
        old = self._folded
        pieces: list[str] = []
        length = done = 0
        at = low.find(old)
        while at >= 0:
            found = text[at : at + len(old)]
            new = capitalized_like(found, self._new)
            if new != found:
                self.changes += 1
            pieces += (text[done:at], new)
            length += at - done + len(new)
            check_length(length)
            done = at + len(old)
            at = low.find(old, done)
        rest = low[done:] if done else low
        start = done + self._tail(rest, old)
        if start < len(text):
            self.held = text[start:]
        pieces.append(text[done:start])
        return "".join(pieces)


def folded(text: str) -> str:
    """The text without capitalisation, character by character, so positions stay what they were.

    A letter whose folded form is longer (`ß`, `İ`) is lowered if that keeps its length, else left as it is.
    """
    if text.isascii():
        return text.lower()
    whole = text.casefold()
    return whole if len(whole) == len(text) else "".join(map(_folded_letter, text))


def _folded_letter(letter: str) -> str:
    for form in (letter.casefold(), letter.lower()):
        if len(form) == 1:
            return form
    return letter


def capitalized_like(found: str, new: str) -> str:
    """`new` with the capitalisation of `found`: all upper, all lower, first upper, or letter by letter as far as it goes."""
    if not found or found.islower():
        return new.lower()
    if found.isupper():
        return new.upper()
    if found[0].isupper() and found[1:].islower():
        return new[:1].upper() + new[1:].lower()
    return "".join(map(_letter_like, found, new)) + new[len(found) :]


def _letter_like(found: str, letter: str) -> str:
    if found.isupper():
        return letter.upper()
    return letter.lower() if found.islower() else letter
