"""Operators' regular expressions: they mean what `re` says, and none of them takes for ever."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.policies.base import PolicyFault
from proxy_core.policies.patterns import Pattern

EXPRESSIONS = [
    r"a+b", r"(?i)SECRET", r"\bkey\b", r"^\s*x", r"x$", r"[{}a-c]+", r"{a}", r"b{s}",
    r"a{2}", r"a{,2}b", r"(a|b)\1", r"(?P<n>ab?)(?P=n)",
    r"(?<=a)b", r"(?!a)b",
    r"a.c", r"\d+-\d+", r"[^a\s]", r"\{x\}", r"(?:a{1}){2}", r"\N{BULLET}",
    r"ß", r"\w+@\w+", r"{}", r"a|", r"(?s)a.b",
    r"(?m)^b", r"\Ab", r"b\Z", r"[\]a]", r"(?x) a b # c", r"a*?b", r"a++b", r"(?>a|ab)c",
]  # fmt: skip
TEXTS = st.text(alphabet="abcxSECRETkeysß•1-@{}., \n\\]", max_size=30)
CATASTROPHES = [(r"(?:a|aa)+b", "a" * 5_000), (r"\s+$", " " * 200_000 + "x"), (r"(a+)+$", "a" * 100_000 + "!")]
IDS = ["alternatives", "spaces", "nested"]
WAYS: list[Callable[[Pattern, str], object]] = [Pattern.found_in, Pattern.matches, lambda one, text: one.replaced(text, "-")]


@given(st.sampled_from(EXPRESSIONS), TEXTS, st.booleans(), st.booleans())
def test_it_means_what_pythons_own_means(expression: str, text: str, ignore_case: bool, dot_all: bool) -> None:
    flags = (re.IGNORECASE if ignore_case else re.NOFLAG) | (re.DOTALL if dot_all else re.NOFLAG)
    theirs, ours = re.compile(expression, flags), Pattern(expression, ignore_case=ignore_case, dot_all=dot_all)
    assert ours.found_in(text) is (theirs.search(text) is not None)
    assert ours.matches(text) is (theirs.fullmatch(text) is not None)
    assert ours.replaced(text, r"<\g<0>>") == theirs.subn(r"<\g<0>>", text)


@pytest.mark.parametrize("way", WAYS, ids=["found", "whole", "replaced"])
@pytest.mark.parametrize(("expression", "text"), CATASTROPHES, ids=IDS)
def test_one_that_would_never_end_is_a_fault(expression: str, text: str, way: Callable[[Pattern, str], object]) -> None:
    started = time.perf_counter()
    try:
        way(Pattern(expression), text)
    except PolicyFault as fault:
        assert fault.reason == "policy_timeout"
        assert expression in str(fault)
    assert time.perf_counter() - started < 2


def test_long_texts_have_the_time_that_they_need() -> None:
    text = "The quick brown fox jumps over 1234-5678 foo@bar.com " * 40_000
    for expression in (
        r"(?i)password",
        r"\b\d{3}-\d{2}-\d{4}\b",
        r"sk-[A-Za-z0-9]{20,}",
        r"(?:secret|confidential) (?:plan|memo)",
    ):
        assert not Pattern(expression).found_in(text)


@pytest.mark.parametrize("expression", ["[", "(?P<a", "a**", "(" * 5_000, r"\p{L}", "a{99999999999}"], ids=len)
def test_what_is_none_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="is no regular expression"):
        Pattern(expression)
