"""A request between two dialects: what both sides can mean, in neither's words.

Readers fill it, writers say it in their dialect. JSON that nobody has to look into (schemas, arguments) stays as its bytes.
Whatever cannot be carried is named in `losses`; nothing is left out silently.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from msgspec import Raw, Struct, field

from proxy_core.wire.editing_json import UnreadableBody, first_byte, json_from, open_object, text_of, value_of
from proxy_core.wire.translate.hints import HINTS

_SAYS_NOTHING = frozenset({b"null", b"false", b"[]", b"{}", b'""'})


class Losses:
    """Names of what cannot be carried, each once, in the order in which they were found."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._hints: dict[str, None] = {}

    def add(self, name: str) -> None:
        (self._hints if name in HINTS else self._names).setdefault(name)

    def add_unknown(self, fields: Mapping[str, Raw], known: Collection[str]) -> None:
        """Name every field that is not known, unless its value says nothing."""
        for name, raw in fields.items():
            if name not in known and bytes(raw) not in _SAYS_NOTHING:
                self.add(name)

    @property
    def names(self) -> tuple[str, ...]:
        """What the answer may depend on."""
        return tuple(self._names)

    @property
    def hints(self) -> tuple[str, ...]:
        """What it does not depend on."""
        return tuple(self._hints)


class Text(Struct, frozen=True):
    text: str


class Attachment(Struct, frozen=True):
    """A picture or a document, inline or by reference."""

    kind: str
    """`image` or `document`."""
    media_type: str
    data: str = ""
    """Base64; empty where there is a reference."""
    url: str = ""
    name: str = ""


class Thought(Struct, frozen=True):
    text: str
    signature: str = ""


class Call(Struct, frozen=True):
    call_id: str
    name: str
    arguments: Raw
    """A JSON object."""


class Result(Struct, frozen=True):
    call_id: str
    name: str
    """The tool's name where the call is known; else empty."""
    parts: tuple[Text | Attachment, ...]
    is_error: bool = False


Part: TypeAlias = Text | Attachment | Thought | Call | Result


class Turn(Struct, frozen=True):
    """One entry of the history. Results of tools stand in turns of the user."""

    role: str
    """`system`, `user` or `assistant`."""
    parts: tuple[Part, ...]


class Tool(Struct, frozen=True):
    name: str
    description: str
    schema: Raw | None
    strict: bool = False


class Schema(Struct, frozen=True):
    """The form that the answer must have."""

    schema: Raw | None
    """A JSON schema; None asks for any JSON object."""
    name: str = ""
    strict: bool | None = None


class Request(Struct):
    """Everything that a request asks for."""

    losses: Losses
    model: str = ""
    turns: list[Turn] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)
    tool_choice: str = ""
    """`auto`, `none`, `any`, `tool` or nothing."""
    tool_name: str = ""
    """The tool that must be called, for the choice `tool`."""
    parallel_calls: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop: tuple[str, ...] = ()
    answer_schema: Schema | None = None
    thinking: bool | None = None
    effort: str = ""
    """`minimal`, `low`, `medium`, `high`, `xhigh`, `max` or nothing."""
    thinking_budget: int | None = None
    """Tokens."""
    user: str = ""
    stream: bool = False
    stream_usage: bool = True
    """Whether the client of a stream wants token counts in it."""


# --- reading ---


def given(fields: Mapping[str, Raw], name: str) -> Raw | None:
    """The value under `name`; None where there is none or null."""
    raw = fields.get(name)
    return None if raw is None or bytes(raw) == b"null" else raw


def text(fields: Mapping[str, Raw], name: str) -> str:
    """The text under `name`; empty where there is none. Raises UnreadableBody for anything else."""
    raw = given(fields, name)
    return "" if raw is None else text_of(raw)


def truth(fields: Mapping[str, Raw], name: str) -> bool | None:
    raw = given(fields, name)
    if raw is None:
        return None
    value = value_of(raw)
    if type(value) is not bool:
        raise UnreadableBody(f"{name} is neither true nor false")
    return value


def number(fields: Mapping[str, Raw], name: str) -> Any:
    """The number under `name`, int or float; None where there is none. Raises UnreadableBody for anything else."""
    raw = given(fields, name)
    if raw is None:
        return None
    value = value_of(raw)
    if type(value) is not int and type(value) is not float:
        raise UnreadableBody(f"{name} is no number")
    return value


def whole_number(fields: Mapping[str, Raw], name: str) -> int | None:
    value = number(fields, name)
    if type(value) is float and value.is_integer():
        return int(value)
    if value is not None and type(value) is not int:
        raise UnreadableBody(f"{name} is no whole number")
    return value


def json_object(raw: Raw, name: str) -> Raw:
    """`raw`, which must be a JSON object."""
    if first_byte(raw) != b"{":
        raise UnreadableBody(f"{name} is no JSON object")
    open_object(raw)
    return raw


def arguments_of(json_text: str) -> Raw:
    """Arguments that came as text. Raises UnreadableBody where they are no JSON object."""
    return json_from(json_text, b"{") if json_text.strip() else Raw(b"{}")
