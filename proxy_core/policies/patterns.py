"""Regular expressions that operators write, over texts that strangers write: looking ends in time, whatever both are.

An expression means what it means to Python's `re`, which reads it first. It runs in `regex`, which stops when its time is over;
that is a fault of the policy, so its `on_error` decides. The time grows with the text, so that honest expressions never meet it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]

from proxy_core.policies.base import PolicyFault
from proxy_core.routing.reasons import Reason

LEAST_S = 0.05
CHARS_PER_S = 4_000_000
"""Slow expressions that still do their work in time read some 12 million characters a second."""
_QUANTIFIER = re.compile(r"\{(?:\d+,?\d*|,\d*)\}")


class Pattern:
    """One expression."""

    __slots__ = ("_compiled", "_expression")

    def __init__(self, expression: str, *, ignore_case: bool = False, dot_all: bool = False) -> None:
        """Raises ValueError where it is no regular expression."""
        self._expression = expression
        try:
            re.compile(expression)
            flags = regex.VERSION0 | (regex.IGNORECASE if ignore_case else 0) | (regex.DOTALL if dot_all else 0)
            self._compiled = regex.compile(_with_plain_braces(expression), flags)
        except (re.error, regex.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{expression[:200]!r} is no regular expression: {error}") from error

    def found_in(self, text: str) -> bool:
        """Whether it matches anywhere. Raises PolicyFault where that takes too long."""
        try:
            return self._compiled.search(text, timeout=_time_for(text)) is not None
        except TimeoutError as error:
            raise self._fault(text) from error

    def matches(self, text: str) -> bool:
        """Whether it matches the whole text. Raises PolicyFault where that takes too long."""
        try:
            return self._compiled.fullmatch(text, timeout=_time_for(text)) is not None
        except TimeoutError as error:
            raise self._fault(text) from error

    def replaced(self, text: str, template: str | Callable[[Any], str]) -> tuple[str, int]:
        r"""The text with every match replaced, and how many there were; `\1` is the first group. Raises PolicyFault."""
        try:
            changed, count = self._compiled.subn(template, text, timeout=_time_for(text))
        except TimeoutError as error:
            raise self._fault(text) from error
        return changed, count

    def _fault(self, text: str) -> PolicyFault:
        return PolicyFault(
            Reason.POLICY_TIMEOUT,
            f"the expression {self._expression[:200]!r} was not done with {len(text):,} characters "
            f"within {_time_for(text):.2g} s; see whether it can be written without repetitions of repetitions",
        )


@lru_cache(maxsize=1_000)
def pattern(expression: str) -> Pattern:
    """The same expression as the same object. Raises ValueError."""
    return Pattern(expression)


def _time_for(text: str) -> float:
    return LEAST_S + len(text) / CHARS_PER_S


def _with_plain_braces(expression: str) -> str:
    """Braces that are no repetition escaped: `regex` would take some of them for other things that `re` does not know."""
    said: list[str] = []
    at = 0
    while at < len(expression):
        one = expression[at]
        if one == "\\":
            end = expression.find("}", at) + 1 if expression.startswith("\\N{", at) else 0
            end = end or at + 2
            said.append(expression[at:end])
            at = end
            continue
        if one == "{" and not _QUANTIFIER.match(expression, at):
            one = "\\{"
        said.append(one)
        at += 1
    return "".join(said)
