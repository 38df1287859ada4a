"""Tool calls by list: names that are allowed or denied, and patterns of arguments.

What is denied stays denied in other letters: small or large, full width, with invisible characters, other spaces, keys in
another order. What is allowed must be exactly so. Arguments that cannot be read meet every rule of denial for their tool.
"""

from __future__ import annotations

import re
from fnmatch import translate
from typing import Any, ClassVar, Literal

from msgspec import Struct
from pydantic import Field, field_validator

from proxy_core.detectors.tool_arguments import (
    Arguments,
    as_text,
    at_path,
    canonical,
    comparable,
    comparable_value,
    plain_letters,
    read_arguments,
)
from proxy_core.policies.base import PolicyParams
from proxy_core.policies.patterns import Pattern
from proxy_core.policies.tool_policy import ALLOW, ToolCallPolicy, ToolDecision, shown_name
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.wire.conversation import ToolCallBlock

_FORMAL_PREFIXES = ("functions.", "default_api.", "tools.")
"""What some models put in front of a tool's name."""


class ToolRule(PolicyParams):
    """One rule; everything that is given must hold."""

    tool: str = "*"
    """Name of the tool; `*` stands for any text."""
    arguments: dict[str, str] = Field(default_factory=dict)
    """Expressions by place: `command`, `options.path`, `files.*`; each is searched for in the value there."""
    pattern: str | None = None
    """An expression that is searched for in the arguments as JSON without spaces, keys in order."""
    action: Literal["allow", "deny"] = "deny"
    """What happens with a call that the rule meets."""

    @field_validator("pattern")
    @classmethod
    def _is_expression(cls, value: str | None) -> str | None:
        if value is not None:
            Pattern(value, dot_all=True)
        return value

    @field_validator("arguments")
    @classmethod
    def _are_expressions(cls, value: dict[str, str]) -> dict[str, str]:
        for expression in value.values():
            Pattern(expression, dot_all=True)
        return value


class ToolAllowDenyParams(PolicyParams):
    allow: list[str] = Field(default_factory=list)
    """Names of tools that may be called; `*` stands for any text. Capital letters count."""
    deny: list[str] = Field(default_factory=list)
    """Names of tools that may not; they win over everything else."""
    rules: list[ToolRule] = Field(default_factory=list)
    """Rules on arguments, in order; the first that a call meets decides, before the list of what is allowed."""
    default: Literal["allow", "deny"] | None = None
    """What happens with every other call; where nothing is said, `deny` if there is a list of what is allowed."""
    message: str = ""
    """What the agent reads in place of a blocked call; {tool_name} stands for its name. Empty for the usual notice."""


class _Rule(Struct, frozen=True):
    tool: re.Pattern[str]
    arguments: tuple[tuple[str, Pattern], ...]
    pattern: Pattern | None
    denies: bool
    number: int


class _Call(Struct, frozen=True):
    """A call in the forms in which rules look at it."""

    name: str
    names: tuple[str, ...]
    """The comparable forms of its name."""
    raw: str
    arguments: Arguments
    comparable: Any
    """The arguments' value with every text in its comparable form."""


class ToolAllowDenyPolicy(ToolCallPolicy[ToolAllowDenyParams]):
    """Allows and denies tool calls by name and by patterns of their arguments."""

    params_model: ClassVar[type[PolicyParams]] = ToolAllowDenyParams
    decides_at_once: ClassVar[bool] = True

    def __init__(self, params: ToolAllowDenyParams) -> None:
        super().__init__(params)
        self._deny = _glob(params.deny, denies=True)
        self._allow = _glob(params.allow, denies=False)
        self._rules = [_rule(rule, number) for number, rule in enumerate(params.rules)]
        self._default = params.default or ("deny" if params.allow else "allow")
        self._idle = not (params.allow or params.deny or params.rules) and self._default == "allow"

    async def decide(self, context: TransactionContext, call: ToolCallBlock) -> ToolDecision:
        verdict = None if self._idle else self._objection(call)
        if verdict is None:
            self.say(context, call, "allow", Reason.PASSED)
            return ALLOW
        reason, message, detail = verdict
        self.say(context, call, "deny", reason, message, **detail)
        return ToolDecision("block", text=self.params.message.replace("{tool_name}", shown_name(call.name)))

    def _objection(self, call: ToolCallBlock) -> tuple[Reason, str, dict[str, Any]] | None:
        """Why a call is denied; None where it is allowed."""
        name = call.name
        if not plain_letters(name).strip():
            return Reason.TOOL_NOT_ALLOWED, "the call names no tool", {}
        names = _names(name)
        if any(self._deny.fullmatch(one) for one in names):
            return Reason.TOOL_NOT_ALLOWED, f"{shown_name(name)} is on the list of what is denied", {}
        if self._rules:
            read = read_arguments(call.arguments)
            seen = _Call(name, names, call.arguments, read, comparable_value(read.value))
            for rule in self._rules:
                if not _meets(rule, seen):
                    continue
                if not rule.denies:
                    return None
                message = f"rule {rule.number + 1} denies these arguments of {shown_name(name)}"
                detail = {"rule": rule.number} | ({"problem": read.problem} if read.problem else {})
                return Reason.TOOL_ARGUMENTS_DENIED, message, detail
        if self._allow.fullmatch(name) or self._default == "allow":
            return None
        return Reason.TOOL_NOT_ALLOWED, f"{shown_name(name)} is not on the list of what is allowed", {}


def _names(name: str) -> tuple[str, ...]:
    comparables = [comparable(name)]
    for prefix in _FORMAL_PREFIXES:
        if comparables[0].startswith(prefix):
            comparables.append(comparables[0].removeprefix(prefix))
    return tuple(comparables)


def _glob(names: list[str], *, denies: bool) -> re.Pattern[str]:
    """One expression for names with `*`; of a denial in the comparable form."""
    shapes = [translate(comparable(name) if denies else name) for name in names]
    return re.compile("|".join(f"(?:{shape})" for shape in shapes) if shapes else r"(?!)")


def _rule(rule: ToolRule, number: int) -> _Rule:
    denies = rule.action == "deny"

    def compiled(expression: str) -> Pattern:
        return Pattern(expression, ignore_case=denies, dot_all=True)

    return _Rule(
        tool=_glob([rule.tool], denies=denies),
        arguments=tuple((path, compiled(expression)) for path, expression in rule.arguments.items()),
        pattern=None if rule.pattern is None else compiled(rule.pattern),
        denies=denies,
        number=number,
    )


def _meets(rule: _Rule, call: _Call) -> bool:
    names = call.names if rule.denies else (call.name,)
    if not any(rule.tool.fullmatch(name) for name in names):
        return False
    reads = bool(rule.arguments) or rule.pattern is not None
    if reads and call.arguments.problem is not None:
        return rule.denies
    if rule.pattern is not None and not any(rule.pattern.found_in(text) for text in _whole(rule, call)):
        return False
    return all(_found(rule, call, path, expression) for path, expression in rule.arguments)


def _whole(rule: _Rule, call: _Call) -> list[str]:
    exact = canonical(call.arguments.value)
    return [exact, canonical(call.comparable)] if rule.denies else [exact]


def _found(rule: _Rule, call: _Call, path: str, expression: Pattern) -> bool:
    values = [as_text(value) for value in at_path(call.arguments.value, path)]
    if rule.denies:
        wanted = ".".join(comparable(step) for step in path.split("."))
        values += [as_text(value) for value in at_path(call.comparable, wanted)]
    return any(expression.found_in(value) for value in values)
