"""The filter language: one way to say which transactions are meant, for views, logs, exports and rules.

`verdict:deny model:claude* latency>800 and not upstream:local`: terms are joined by `and`, `or`, `not` and
parentheses, standing side by side is `and`, a bare word or "quoted phrase" searches the text of a row.
`parse` compiles to closures; it never touches a row. A number that is unknown (None) matches no comparison.
Unknown fields and malformed terms raise FilterError with the column, counted from 1.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import translate
from typing import Literal

from proxy_core.control.rows import TransactionRow

Test = Callable[[TransactionRow], bool]
Kind = Literal["text", "status", "count", "ms", "usd", "bytes", "is"]


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
    text: Callable[[TransactionRow], str] | None = None
    number: Callable[[TransactionRow], float | None] | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """A compiled filter. `str()` gives it in canonical form, which parses to the same filter."""

    source: str
    matches: Test
    """Whether a row is meant."""

    def __str__(self) -> str:
        return self.source

    def __bool__(self) -> bool:
        return bool(self.source)


FIELDS: dict[str, FilterField] = {}
"""Every field by name, in the order of the documentation."""


def _text(name: str, meaning: str, example: str, get: Callable[[TransactionRow], str]) -> None:
    FIELDS[name] = FilterField(name, "text", meaning, example, text=get)


def _number(name: str, kind: Kind, meaning: str, example: str, get: Callable[[TransactionRow], float | None]) -> None:
    FIELDS[name] = FilterField(name, kind, meaning, example, number=get)


_text("verdict", "what policies decided: allow, flag, modify, route, hold, deny", "verdict:deny", lambda row: row.verdict)
_text("outcome", "how it ended: ok, error, truncated, cancelled, refused", "outcome:truncated", lambda row: row.outcome)
_text("state", "where it is: receiving, waiting, streaming, done", "state:streaming", lambda row: row.state)
_text("model", "model as the client named it", "model:claude*", lambda row: row.model)
_text("session", "session id", "session:refactor*", lambda row: row.session_id)
_text("agent", "agent", "agent:codex", lambda row: row.agent)
_text("upstream", "upstream that answered", "upstream:openai", lambda row: row.upstream)
_text("via", "the same as upstream", "via:local", lambda row: row.upstream)
_text("dialect", "API family: openai, anthropic, ollama", "dialect:anthropic", lambda row: row.dialect)
_text("operation", "what was asked: chat, messages, responses, embeddings, …", "operation:chat", lambda row: row.operation)
_text("method", "HTTP method", "method:post", lambda row: row.method)
_text("path", "raw path of the request", "path:/v1/messages*", lambda row: row.path)
_text("id", "transaction id", "id:01j9*", lambda row: row.transaction_id)
_text("reason", "routing reason code", "reason:default*", lambda row: row.reason)
_text("error", "what went wrong", "error:*timed?out*", lambda row: row.error)
_text("stop", "why the model stopped", "stop:tool*", lambda row: row.stop_reason)
_number("status", "status", "HTTP status; with a glob, or compared", "status>=400", lambda row: row.status)
_number("latency", "ms", "total time", "latency>800", lambda row: row.total_ms)
_number("total", "ms", "the same as latency", "total>2s", lambda row: row.total_ms)
_number("ttft", "ms", "time to the first token", "ttft<300ms", lambda row: row.ttft_ms)
_number("overhead", "ms", "time spent in luthien before sending", "overhead>5", lambda row: row.overhead_ms)
_number("cost", "usd", "price in USD", "cost>=$0.05", lambda row: row.cost_usd)
_number("in", "count", "input tokens", "in>8k", lambda row: row.input_tokens)
_number("out", "count", "output tokens", "out=0", lambda row: row.output_tokens)
_number("tokens", "count", "input and output tokens", "tokens>100k", lambda row: row.tokens)
_number("cached", "count", "cached input tokens", "cached>0", lambda row: row.cached_tokens)
_number("bytes", "bytes", "response bytes so far", "bytes>1M", lambda row: row.response_bytes)
_number("chunks", "count", "response chunks so far", "chunks>10", lambda row: row.chunks)
_number("tools", "count", "tool calls in the answer", "tools>0", lambda row: row.tool_calls)
FIELDS["is"] = FilterField("is", "is", "running, stream, error (failed in any way), done, tool", "is:running")

_IS: dict[str, Test] = {
    "running": lambda row: row.state != "done",
    "done": lambda row: row.state == "done",
    "stream": lambda row: row.stream,
    "error": lambda row: row.outcome in ("error", "truncated", "refused"),
    "tool": lambda row: row.tool_calls > 0,
}
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


def parse(text: str) -> Filter:
    """The filter that `text` describes; an empty one means every row. Raises FilterError."""
    parser = _Parser(text)
    if parser.at_end():
        return EVERYTHING
    source, test = parser.disjunction()
    if not parser.at_end():
        raise FilterError("unexpected ')'; no parenthesis is open here", parser.position + 1)
    return Filter(source, test)


def _everything(row: TransactionRow) -> bool:
    return True


EVERYTHING = Filter("", _everything)


class _Parser:
    """Recursive descent; each level returns its canonical text and its test."""

    def __init__(self, text: str) -> None:
        self.text = text
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
        parts = [self.negation()]
        while not self.at_end() and self.text[self.position] != ")" and self._peek_keyword() != "or":
            self._take_keyword("and")
            parts.append(self.negation())
        return " ".join(source for source, _ in parts), _all([test for _, test in parts])

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
        return self._term()

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

    def _term(self) -> tuple[str, Test]:
        start = self.position
        head = _TERM.match(self.text, start)
        if head is None:
            if self.text[start] == '"':
                phrase = self._value(start, "a phrase")
                return _quoted(phrase, force=True), _search(phrase, wild=False)
            word = _WORD.match(self.text, start)
            if word is None:  # pragma: no cover - every other character is handled above
                raise FilterError("cannot be read", start + 1)
            self.position = word.end()
            return word[0], _search(word[0], wild=True)
        name = head[1].lower()
        field = FIELDS.get(name)
        if field is None:
            raise FilterError(f"no field '{head[1]}'{_nearest(name)}", start + 1)
        self.position = head.end()
        column = self.position + 1
        value = self._value(self.position, f"'{name}'")
        source, test = _compile(field, head[2], value, column)
        return source, test

    def _value(self, start: int, what: str) -> str:
        value = _VALUE.match(self.text, start)
        if value is None:
            if start < len(self.text) and self.text[start] == '"':
                raise FilterError("this quote is never closed", start + 1, unfinished=True)
            raise FilterError(f"{what} needs a value right here", start + 1, unfinished=start >= len(self.text))
        self.position = value.end()
        text = value[0]
        return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] == '"' else text


def _compile(field: FilterField, sign: str, value: str, column: int) -> tuple[str, Test]:
    source = f"{field.name}{sign}{_quoted(value)}"
    if field.kind == "is":
        if sign != ":" or value.lower() not in _IS:
            raise FilterError(f"'is' takes {', '.join(_IS)}, after a colon", column)
        return source, _IS[value.lower()]
    if field.text is not None:
        if sign not in (":", "=", "!="):
            raise FilterError(f"'{field.name}' is text: use {field.name}:{value}", column - len(sign))
        test = _match_text(field.text, value)
        return source, (lambda row: not test(row)) if sign == "!=" else test
    assert field.number is not None  # noqa: S101 - a field has one of the two
    get = field.number
    if field.kind == "status" and sign in (":", "=", "!=") and (_WILD.search(value) or value[1:].lower() == "xx"):
        pattern = value.lower().replace("xx", "*")
        known = _match_text(lambda row: str(row.status), pattern)
        wanted = sign != "!="
        return source, lambda row: row.status is not None and known(row) is wanted
    bound, compare = _amount(field, value, column), _COMPARE[sign]

    def numeric(row: TransactionRow) -> bool:
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


def _match_text(get: Callable[[TransactionRow], str], pattern: str) -> Test:
    lowered = pattern.lower()
    if not _WILD.search(lowered):
        return lambda row: get(row).lower() == lowered
    if not _WILD.search(lowered[:-1]) and lowered[-1] == "*":
        prefix = lowered[:-1]
        return lambda row: get(row).lower().startswith(prefix)
    match = re.compile(translate(lowered)).match
    return lambda row: match(get(row).lower()) is not None


def _search(word: str, *, wild: bool) -> Test:
    lowered = word.lower()
    if wild and _WILD.search(lowered):
        find = re.compile(translate(f"*{lowered}*")).match
        return lambda row: find(_searched(row)) is not None
    return lambda row: lowered in _searched(row)


def _searched(row: TransactionRow) -> str:
    return (
        f"{row.transaction_id}\n{row.session_id}\n{row.agent}\n{row.model}\n{row.upstream}\n{row.path}\n{row.error}\n{row.preview}"
    ).lower()


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


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, FIELDS, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else "; quote the word to search for it as text"


def fields_table() -> str:
    """The fields as a Markdown table, for the documentation."""
    lines = ["| field | meaning | example |", "|---|---|---|"]
    lines += [f"| `{field.name}` | {field.meaning} | `{field.example}` |" for field in FIELDS.values()]
    return "\n".join(lines) + "\n"
