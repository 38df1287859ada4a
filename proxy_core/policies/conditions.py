"""Conditions on a transaction, as data: eleven kinds, JSON in and out, evaluated without side effects.

An operand is a static value or a path into the transaction (`request.payload.model`); a path that leads nowhere gives None.
Comparison is strict: 1 is not "1", true is not 1, and what cannot be compared is false, never an error. A regular expression
that does not compile is refused when the condition is read.

The JSON is Luthien Control's: `{"type": "equals", "left": {"type": "transaction_path", "path": "request.payload.model"},
"right": {"type": "static", "value": "gpt-4o"}}`. Shorter forms of operands are understood: a plain text, number, boolean or
null is a static value, `{"path": …}` a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AliasChoices, BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from proxy_core.policies.patterns import pattern
from proxy_core.policies.transaction_paths import REQUEST_FIELDS, RESPONSE_FIELDS, ROOTS, Resolve


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)


# -- operands ---------------------------------------------------------------------------------------------------------


class Static(_Part):
    """A value that is written down."""

    type: Literal["static"] = "static"
    value: Any = None
    """Any JSON value."""


class TransactionPath(_Part):
    """A value of the transaction."""

    type: Literal["transaction_path"] = "transaction_path"
    path: str
    """Names and list indices with dots between them; a negative index counts from the end."""
    transform: Literal["none", "lower", "length"] = "none"
    """What is made of the value: text in lower case, or the number of characters or entries. Nothing of other kinds."""

    @field_validator("path")
    @classmethod
    def _begins_somewhere(cls, path: str) -> str:
        from difflib import get_close_matches

        names = path.split(".")
        fields = {"request": REQUEST_FIELDS, "response": RESPONSE_FIELDS}.get(names[0])
        known = ROOTS if fields is None else fields
        wrong = names[0] if fields is None else ".".join(names[1:2])
        if wrong in known:
            return path
        near = get_close_matches(wrong, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
        raise ValueError(f"the path {path!r} leads nowhere; {hint}")


def _operand_kind(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return str(value.get("type")) if "type" in value else None
    return str(getattr(value, "type", None))


def _spelled_out(value: Any) -> Any:
    """The full form of an operand."""
    if isinstance(value, str | int | float | bool | None):
        return {"type": "static", "value": value}
    if isinstance(value, Mapping) and "type" not in value:
        if "path" in value:
            return {"type": "transaction_path", **value}
        if "value" in value:
            return {"type": "static", **value}
    return value


Operand: TypeAlias = Annotated[
    Annotated[Static, Tag("static")] | Annotated[TransactionPath, Tag("transaction_path")],
    Discriminator(_operand_kind, custom_error_type="operand", custom_error_message="give a static value or {path: …}"),
]


# -- conditions -------------------------------------------------------------------------------------------------------


class _Comparison(_Part):
    left: Operand
    right: Operand

    @model_validator(mode="before")
    @classmethod
    def _takes_short_forms(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        found = dict(value)
        for side in ("left", "right"):
            if side in found:
                found[side] = _spelled_out(found[side])
        if "comparator" in found:  # Luthien Control says the kind twice
            if found["comparator"] != found.get("type"):
                raise ValueError(f"comparator {found['comparator']!r} contradicts the type {found.get('type')!r}")
            del found["comparator"]
        return found


class Equals(_Comparison):
    type: Literal["equals"]


class NotEquals(_Comparison):
    type: Literal["not_equals"]


class Contains(_Comparison):
    """Whether `right` is in `left`: a text in a text, an entry of a list, a key of an object."""

    type: Literal["contains"]


class LessThan(_Comparison):
    type: Literal["less_than"]


class LessThanOrEqual(_Comparison):
    type: Literal["less_than_or_equal"]


class GreaterThan(_Comparison):
    type: Literal["greater_than"]


class GreaterThanOrEqual(_Comparison):
    type: Literal["greater_than_or_equal"]


class RegexMatch(_Comparison):
    """Whether the pattern `right` is found anywhere in the text `left`."""

    type: Literal["regex_match"]

    @model_validator(mode="after")
    def _compiles(self) -> RegexMatch:
        if not isinstance(self.right, Static) or not isinstance(self.right.value, str):
            raise ValueError("the pattern on the right has to be a static text; traffic cannot choose patterns")
        pattern(self.right.value)
        return self


class AllOf(_Part):
    """Whether every one holds; of none, true."""

    type: Literal["all"]
    conditions: list[Condition]


class AnyOf(_Part):
    """Whether one of them holds; of none, false."""

    type: Literal["any"]
    conditions: list[Condition]


class Not(_Part):
    type: Literal["not"]
    condition: Condition = Field(validation_alias=AliasChoices("condition", "cond", "value"))


Condition: TypeAlias = Annotated[
    Equals
    | NotEquals
    | Contains
    | LessThan
    | LessThanOrEqual
    | GreaterThan
    | GreaterThanOrEqual
    | RegexMatch
    | AllOf
    | AnyOf
    | Not,
    Field(discriminator="type"),
]
AllOf.model_rebuild()
AnyOf.model_rebuild()
Not.model_rebuild()


def paths_of(condition: Condition) -> set[str]:
    """Every path that the condition looks at."""
    match condition:
        case AllOf() | AnyOf():
            return {path for one in condition.conditions for path in paths_of(one)}
        case Not():
            return paths_of(condition.condition)
    return {side.path for side in (condition.left, condition.right) if isinstance(side, TransactionPath)}


def evaluate(condition: Condition, resolve: Resolve) -> bool:
    """Whether it holds where `resolve` gives the values of paths. Raises PolicyFault where a pattern takes too long."""
    match condition:
        case AllOf():
            return all(evaluate(one, resolve) for one in condition.conditions)
        case AnyOf():
            return any(evaluate(one, resolve) for one in condition.conditions)
        case Not():
            return not evaluate(condition.condition, resolve)
    left, right = _value(condition.left, resolve), _value(condition.right, resolve)
    match condition:
        case Equals():
            return same(left, right)
        case NotEquals():
            return not same(left, right)
        case Contains():
            return _contains(left, right)
        case RegexMatch():
            return isinstance(left, str) and pattern(right).found_in(left)
    if not _comparable(left, right):
        return False
    match condition:
        case LessThan():
            return bool(left < right)
        case LessThanOrEqual():
            return bool(left <= right)
        case GreaterThan():
            return bool(left > right)
    return bool(left >= right)


def _value(operand: Static | TransactionPath, resolve: Resolve) -> Any:
    if isinstance(operand, Static):
        return operand.value
    value = resolve(operand.path)
    if operand.transform == "lower":
        return value.lower() if isinstance(value, str) else None
    if operand.transform == "length":
        return len(value) if isinstance(value, str | list | dict) else None
    return value


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values: numbers by value, and no kind is ever another."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    return bool(left == right)


def _contains(whole: Any, part: Any) -> bool:
    if isinstance(whole, str):
        return isinstance(part, str) and part in whole
    if isinstance(whole, list):
        return any(same(one, part) for one in whole)
    return isinstance(whole, dict) and isinstance(part, str) and part in whole


def _comparable(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    return numbers or (isinstance(left, str) and isinstance(right, str))
