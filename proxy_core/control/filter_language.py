"""The filter language: terms joined by `and`, `or`, `not` and parentheses, over any vocabulary.

`compile` gives a filter's canonical form, which compiles to the same filter, and a closure that tests one thing; it never
touches what it tests. Standing side by side is `and`; a bare word or "quoted phrase" searches a text. A number that is
unknown (None) matches no comparison. Unknown fields and malformed terms raise FilterError with the column, counted from 1.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from typing import Any, Literal

Test = Callable[[Any], bool]
Kind = Literal["text", "search", "status", "count", "score", "ms", "usd", "bytes", "is"]


class FilterError(ValueError):
    """A filter that cannot be read; `column` is where, counted from 1."""

    def __init__(self, message: str, column: int, *, unfinished: bool = False) -> None:
        super().__init__(f"column {column}: {message}")
        self.message = message
        self.column = column
        self.unfinished = unfinished
        """Whether more text at the end could make it right."""


@dataclass(frozen=True, slots=True)
class FilterField:
    """One name that may stand before an operator."""

    name: str
    kind: Kind
    meaning: str
    example: str
    text: Callable[[Any], str] | None = None
    """Of the kind `search` a value need only stand somewhere in it."""
    texts: Callable[[Any], Iterable[str]] | None = None
    """Several texts; one of them that fits is enough."""
    number: Callable[[Any], float | None] | None = None
    of_part: bool = False
    """Whether it is read from a part of what the filter is about, such as one of its verdicts."""


@dataclass(frozen=True, slots=True)
class Language:
    """The grammar over one vocabulary: what may be asked, and of what."""

    fields: Mapping[str, FilterField]
    words: Mapping[str, Test]
    """What may stand after `is:`."""
    searched: Callable[[Any], str]
    """The text in which bare words are found, in lower case."""
    parts: Callable[[Any], Iterable[Any]] = lambda whole: ()
    """The parts that fields with `of_part` read. Terms on parts that stand side by side are about one and the same part."""
    elsewhere: str = ""
    """What is said of a field that only another vocabulary has; `{}` stands for its name."""
    other_fields: frozenset[str] = frozenset()

    def compile(self, text: str) -> tuple[str, Test] | None:
        """Canonical form and test of a filter, None for an empty one. Raises FilterError."""
        parser = _Parser(text, self)
        if parser.at_end():
            return None
        source, test = parser.disjunction()
        if not parser.at_end():
            raise FilterError("unexpected ')'; no parenthesis is open here", parser.position + 1)
        return source, test


_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ":": operator.eq,
    "!=": operator.ne,
}
_UNITS: dict[str, dict[str, float]] = {
    "ms": {"": 1, "us": 0.001, "ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000},
    "count": {"": 1, "k": 1_000, "M": 1_000_000},
    "usd": {"": 1, "k": 1_000},
    "score": {"": 1},
    "bytes": {"": 1, "k": 1_000, "kB": 1_000, "M": 1_000_000, "MB": 1_000_000, "G": 1e9, "GB": 1e9},
    "status": {"": 1},
}
_TERM = re.compile(r"([A-Za-z_]\w*)(>=|<=|!=|[:=<>])")
_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s()"]+')
_WORD = re.compile(r"[^\s()\"]+")
_NUMBER = re.compile(r"\$?(\d+(?:\.\d+)?|\.\d+)([A-Za-z]*)")
_WILD = re.compile(r"[*?\[]")
_PLAIN = re.compile(r"[^\s()\"]+")
_KEYWORDS = ("and", "or", "not")


class _Parser:
    """Recursive descent; each level returns its canonical text and its test."""

    def __init__(self, text: str, language: Language) -> None:
        self.text = text
        self.language = language
        self.position = 0
        self.depth = 0

    def at_end(self) -> bool:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1
        return self.position >= len(self.text)

    def disjunction(self) -> tuple[str, Test]:
        sources, tests = self._series(self.conjunction, "or")
        return " or ".join(sources), _any(tests)

    def conjunction(self) -> tuple[str, Test]:
        items = [self.item()]
        while not self.at_end() and self.text[self.position] != ")" and self._peek_keyword() != "or":
            self._take_keyword("and")
            items.append(self.item())
        tests = [test for _, test, of_part in items if not of_part]
        if of_one := [test for _, test, of_part in items if of_part]:
            tests.append(_some(self.language.parts, _all(of_one)))
        return " ".join(source for source, _, _ in items), _all(tests)

    def item(self) -> tuple[str, Test, bool]:
        """A term, or something in parentheses or negated; and whether its test is one of a part."""
        if self.at_end() or self._peek_keyword() or self.text[self.position] in "()":
            return *self.negation(), False
        return self._term()

    def negation(self) -> tuple[str, Test]:
        if self.at_end():
            raise FilterError("a term is missing at the end", len(self.text) + 1, unfinished=True)
        start = self.position
        if self._take_keyword("not"):
            self._deeper(start)
            source, test = self.negation()
            self.depth -= 1
            return f"not {source}", lambda row: not test(row)
        if keyword := self._peek_keyword():
            raise FilterError(f"a term is missing before '{keyword}'", start + 1)
        if self.text[start] == "(":
            self._deeper(start)
            self.position += 1
            if self.at_end():
                raise FilterError("'(' is never closed", start + 1, unfinished=True)
            source, test = self.disjunction()
            if self.at_end():
                raise FilterError("'(' is never closed", start + 1, unfinished=True)
            self.position += 1
            self.depth -= 1
            return f"({source})", test
        if self.text[start] == ")":
            raise FilterError("a term is missing before ')'", start + 1)
        source, test, of_part = self._term()
        return source, _some(self.language.parts, test) if of_part else test

    def _deeper(self, start: int) -> None:
        self.depth += 1
        if self.depth > 50:
            raise FilterError("nested more than 50 deep", start + 1)

    def _series(self, item: Callable[[], tuple[str, Test]], keyword: str) -> tuple[list[str], list[Test]]:
        parts = [item()]
        while not self.at_end() and self._take_keyword(keyword):
            parts.append(item())
        return [source for source, _ in parts], [test for _, test in parts]

    def _peek_keyword(self) -> str:
        word = _WORD.match(self.text, self.position)
        return word[0].lower() if word and word[0].lower() in _KEYWORDS else ""

    def _take_keyword(self, keyword: str) -> bool:
        if self._peek_keyword() != keyword:
            return False
        self.position += len(keyword)
        return True

    def _term(self) -> tuple[str, Test, bool]:
        start = self.position
        searched = self.language.searched
        head = _TERM.match(self.text, start)
        if head is None:
            if self.text[start] == '"':
                phrase = self._value(start, "a phrase")
                return _quoted(phrase, force=True), _search(searched, phrase, wild=False), False
            word = _WORD.match(self.text, start)
            if word is None:  # pragma: no cover - every other character is handled above
                raise FilterError("cannot be read", start + 1)
            self.position = word.end()
            return word[0], _search(searched, word[0], wild=True), False
        name = head[1].lower()
        field = self.language.fields.get(name)
        if field is None:
            raise FilterError(f"no field '{head[1]}'{_nearest(name, self.language)}", start + 1)
        self.position = head.end()
        column = self.position + 1
        value = self._value(self.position, f"'{name}'")
        source, test = _compile(field, head[2], value, column, self.language.words)
        return source, test, field.of_part

    def _value(self, start: int, what: str) -> str:
        value = _VALUE.match(self.text, start)
        if value is None:
            if start < len(self.text) and self.text[start] == '"':
                raise FilterError("this quote is never closed", start + 1, unfinished=True)
            raise FilterError(f"{what} needs a value right here", start + 1, unfinished=start >= len(self.text))
        self.position = value.end()
        text = value[0]
        return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] == '"' else text


def _compile(field: FilterField, sign: str, value: str, column: int, words: Mapping[str, Test]) -> tuple[str, Test]:
    source = f"{field.name}{sign}{_quoted(value)}"
    if field.kind == "is":
        if sign != ":" or value.lower() not in words:
            raise FilterError(f"'is' takes {', '.join(words)}, after a colon", column)
        return source, words[value.lower()]
    if field.text is not None or field.texts is not None:
        if sign not in (":", "=", "!="):
            raise FilterError(f"'{field.name}' is text: use {field.name}:{value}", column - len(sign))
        if field.text is None:
            test = _some(field.texts or (lambda whole: ()), _match_text(str, value))
        else:
            test = _search(field.text, value, wild=True) if field.kind == "search" else _match_text(field.text, value)
        return source, (lambda row: not test(row)) if sign == "!=" else test
    assert field.number is not None  # noqa: S101 - a field has one of the two
    get = field.number
    if field.kind == "status" and sign in (":", "=", "!=") and (_WILD.search(value) or value[1:].lower() == "xx"):
        pattern = value.lower().replace("xx", "*")
        known = _match_text(str, pattern)
        wanted = sign != "!="

        def like(row: Any) -> bool:
            found = get(row)
            return found is not None and known(found) is wanted

        return source, like
    bound, compare = _amount(field, value, column), _COMPARE[sign]

    def numeric(row: Any) -> bool:
        found = get(row)
        return found is not None and compare(found, bound)

    return source, numeric


def _amount(field: FilterField, value: str, column: int) -> float:
    units = _UNITS[field.kind]
    read = _NUMBER.fullmatch(value)
    unit = None if read is None else next((u for u in (read[2], read[2].lower(), read[2].upper()) if u in units), None)
    if read is None or unit is None or (value[0] == "$" and field.kind != "usd"):
        known = [u for u in units if u]
        hint = f", with {', '.join(known)} or nothing after it" if known else ""
        raise FilterError(f"'{value}' is no number for '{field.name}'{hint}", column)
    return float(read[1]) * units[unit]


def _match_text(get: Callable[[Any], str], pattern: str) -> Test:
    lowered = pattern.lower()
    if not _WILD.search(lowered):
        return lambda row: get(row).lower() == lowered
    if not _WILD.search(lowered[:-1]) and lowered[-1] == "*":
        prefix = lowered[:-1]
        return lambda row: get(row).lower().startswith(prefix)
    match = re.compile(translate(lowered)).match
    return lambda row: match(get(row).lower()) is not None


def _search(get: Callable[[Any], str], word: str, *, wild: bool) -> Test:
    """Whether `word` stands somewhere in the text, which `get` gives in lower case."""
    lowered = word.lower()
    if wild and _WILD.search(lowered):
        find = re.compile(translate(f"*{lowered}*")).match
        return lambda row: find(get(row)) is not None
    return lambda row: lowered in get(row)


def _some(parts: Callable[[Any], Iterable[Any]], test: Test) -> Test:
    return lambda whole: any(test(part) for part in parts(whole))


def _all(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda row: first(row) and second(row)
    first, second, third = tests[0], tests[1], _all(tests[2:])
    return lambda row: first(row) and second(row) and third(row)


def _any(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    first, rest = tests[0], _any(tests[1:])
    return lambda row: first(row) or rest(row)


def _quoted(value: str, *, force: bool = False) -> str:
    if not force and _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _nearest(name: str, language: Language) -> str:
    from difflib import get_close_matches

    if name in language.other_fields:
        return f"; {language.elsewhere.format(name)}"
    near = get_close_matches(name, language.fields, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else "; quote the word to search for it as text"


def fields_table(fields: Mapping[str, FilterField]) -> str:
    """The fields as a Markdown table, for the documentation."""
    lines = ["| field | meaning | example |", "|---|---|---|"]
    lines += [f"| `{field.name}` | {field.meaning} | `{field.example}` |" for field in fields.values()]
    return "\n".join(lines) + "\n"
