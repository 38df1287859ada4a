"""Keywords in texts that people and models wrote: found whatever the case, width or invisible characters.

Text and keyword are brought into one form first: Unicode NFKC and case folding, invisible characters taken out, runs of white
space as one space. A keyword stands as a word of its own, unless it is looked for as a part of words; scripts that put no
spaces between words have no borders to look for. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from hashlib import blake2b

_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u115f\u1160\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, kana and Han."""

_REMEMBERED_FROM_CHARS = 256
_REMEMBERED = 32_768
_searched: dict[tuple[bytes, tuple[str, ...], bool], int | None] = {}
"""What was found in long texts, by their hash: agents send their whole history again with every request."""


def normalised(text: str) -> str:
    """The form in which texts and keywords are compared."""
    if text.isascii():
        folded = text.lower()
    else:
        shown = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
        folded = _INVISIBLE.sub("", unicodedata.normalize("NFKC", shown.casefold()))
    return " ".join(folded.split())  # far faster than an expression


def usable_keywords(keywords: Iterable[str]) -> tuple[str, ...]:
    """Keywords in the form in which they are looked for, in order; blank ones and repetitions are left out."""
    return tuple(dict.fromkeys(word for one in keywords if (word := normalised(one).strip())))


def find_keyword(texts: Iterable[str], keywords: tuple[str, ...], *, whole_words: bool) -> int | None:
    """Number (from 0) of a keyword that a text holds, or None. `keywords` come from `usable_keywords`."""
    for text in texts:
        if len(text) < _REMEMBERED_FROM_CHARS:
            number = _search(text, keywords, whole_words)
        else:
            mark = (blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(), keywords, whole_words)
            try:
                number = _searched[mark]
            except KeyError:
                if len(_searched) >= _REMEMBERED:
                    _searched.clear()
                number = _searched[mark] = _search(text, keywords, whole_words)
        if number is not None:
            return number
    return None


def _search(text: str, keywords: tuple[str, ...], whole_words: bool) -> int | None:
    form = normalised(text)
    for number, keyword in enumerate(keywords):
        if keyword in form and (not whole_words or _stands_alone(keyword, form)):
            return number
    return None


def _stands_alone(keyword: str, form: str) -> bool:
    at = form.find(keyword)
    while at >= 0:
        end = at + len(keyword)
        if not (_joined(form[at - 1 : at], keyword[0]) or _joined(keyword[-1], form[end : end + 1])):
            return True
        at = form.find(keyword, at + 1)
    return False


def _joined(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word; an underscore parts words."""
    if not (left.isalnum() and right.isalnum()):
        return False
    return not (_WITHOUT_SPACES.match(left) or _WITHOUT_SPACES.match(right))
