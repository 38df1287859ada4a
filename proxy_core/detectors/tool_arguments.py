"""The arguments of a tool call, and names, in one form: what a denied call may not change to become another.

Pure functions. Strict where a reader could be misled: twice the same key, NaN, text after the value and deep nesting are
problems, and whoever must know the arguments refuses such a call.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

MAX_DEPTH = 100


class Arguments(Struct, frozen=True):
    """Arguments as a value."""

    value: Any
    """JSON value; None where there is none."""
    problem: str | None = None
    """Why the text is no JSON that everybody reads alike; None where it is."""


class _Doubtful(ValueError):
    pass


def read_arguments(text: str) -> Arguments:
    """The arguments that a model gave; an empty text stands for no arguments."""
    if not text.strip():
        return Arguments({})
    try:
        value = _read(text)
        if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
            value = _read(value)  # models sometimes write JSON into JSON, and some clients read it twice
        return Arguments(value)
    except _Doubtful as error:
        return Arguments(None, str(error))
    except RecursionError:
        return Arguments(None, "the arguments are nested too deeply")
    except ValueError:
        return Arguments(None, "the arguments are not JSON")


def _read(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refused_constant)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _Doubtful("the arguments have the same key twice")
    return fields


def _refused_constant(word: str) -> None:
    raise _Doubtful(f"the arguments hold {word}, which is not JSON")


def canonical(value: Any) -> str:
    """JSON text without spaces, keys in order, letters as they are."""
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    except (RecursionError, ValueError, TypeError):
        return ""


_SPACES = re.compile(r"\s+")


def plain_letters(text: str) -> str:
    """Without invisible characters, and compatibility forms (full width, ligatures, …) as their usual letters."""
    if text.isascii():
        return text
    folded = unicodedata.normalize("NFKC", text)
    return "".join(letter for letter in folded if unicodedata.category(letter) != "Cf")


def comparable(text: str) -> str:
    """A form in which variants of one text are alike: `plain_letters`, small letters, single spaces."""
    return _SPACES.sub(" ", plain_letters(text)).strip().casefold()


def comparable_value(value: Any, depth: int = 0) -> Any:
    """A JSON value with every text and key in its comparable form."""
    if isinstance(value, str):
        return comparable(value)
    if depth > MAX_DEPTH:
        return value
    if isinstance(value, dict):
        return {comparable(key): comparable_value(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list):
        return [comparable_value(inner, depth + 1) for inner in value]
    return value


def at_path(value: Any, path: str) -> Iterator[Any]:
    """The values at a path of keys and numbers, `options.paths.0`; `*` stands for any of them."""
    found = [value]
    for step in path.split("."):
        following: list[Any] = []
        for one in found:
            if isinstance(one, dict):
                following += one.values() if step == "*" else [one[step]] if step in one else []
            elif isinstance(one, list):
                if step == "*":
                    following += one
                elif step.isdigit() and int(step) < len(one):
                    following.append(one[int(step)])
        found = following
    yield from found


def as_text(value: Any) -> str:
    """A value as one would write it: text as it is, the rest as JSON."""
    return value if isinstance(value, str) else canonical(value)


def texts(value: Any, depth: int = 0) -> Iterator[str]:
    """Every text of a JSON value, keys left out."""
    if isinstance(value, str):
        yield value
    elif depth <= MAX_DEPTH and isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner, depth + 1)
