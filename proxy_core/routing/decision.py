"""Where a request goes, and why: a pure function of the question and the rules.

The rules in their order: an operator who keeps everything local; the upstream that the path or a policy names; the one
configured for the model; a keyword, which keeps the request local whatever else is said; the client's tags; the cost; the
default. A rule whose upstream cannot take the request is passed over, and the reasons say so. The same question and rules give
the same decision, at any time and in any process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Literal

import msgspec
from msgspec import Struct

from proxy_core.routing.keywords import find_keyword
from proxy_core.routing.reasons import Reason

RULES = ("explicit", "model", "sensitivity", "tag", "cost", "default")
"""The order in which rules are asked; before them an operator, `operator`, while everything is to stay local."""

KEEPING = frozenset({"operator", "sensitivity"})
"""Rules that keep a request local: where no local upstream can take it, it is refused."""

LOCAL, PUBLIC = "local", "public"
"""Words for the first local upstream, and for the usual upstream of a request's API, or else the first that is not local."""


class RoutingRules(Struct, frozen=True, kw_only=True):
    """What is configured."""

    keywords: tuple[str, ...] = ()
    """As `usable_keywords` gives them."""
    whole_words: bool = True
    last_user_only: bool = False
    """Whether only what the user wrote last is looked through, in place of the whole conversation."""
    models: tuple[tuple[str, str], ...] = ()
    """Pattern of the model's name (`*` stands for any text) and upstream, in order."""
    tags: tuple[tuple[str, str], ...] = ()
    """`name:value`, or a name alone for any value, and upstream, in order."""
    max_prompt_length_for_local: int | None = None
    """Characters."""
    max_usd_for_local: float | None = None
    input_usd_per_1m_tokens: float | None = None
    """With `max_usd_for_local` this is what counts, in place of the length."""
    chars_per_token: float = 4.0
    default_provider: str = ""
    """Name of an upstream, `local` or `public`; empty for the usual upstream of a request's API."""
    force_local: bool = False
    """Whether an operator keeps everything local: what no local upstream can take is refused."""

    @property
    def by_usd(self) -> bool:
        """Whether the rule of cost counts USD, not characters."""
        return self.max_usd_for_local is not None and self.input_usd_per_1m_tokens is not None

    @property
    def read_text(self) -> bool:
        """Whether a rule needs to know what is said."""
        return bool(self.keywords) or self.by_usd or self.max_prompt_length_for_local is not None

    @property
    def idle(self) -> bool:
        """Whether nothing is configured, so that every request goes where its path says."""
        return not (self.read_text or self.models or self.tags or self.default_provider or self.force_local)

    @property
    def digest(self) -> str:
        """16 hex digits that differ where any rule differs; they tell nothing of the keywords."""
        return sha256(msgspec.json.encode(self)).hexdigest()[:16]


class Candidate(Struct, frozen=True):
    """A configured upstream, as the rules see it."""

    name: str
    local: bool
    takes: bool
    """Whether it can take the request."""


class Question(Struct, frozen=True, kw_only=True):
    """One request, as the rules see it."""

    upstreams: tuple[Candidate, ...]
    """In the order of the configuration."""
    usual: str = ""
    """The usual upstream of the API that the path names; empty where there is none."""
    asked: str = ""
    """The upstream that the path or a policy names."""
    asked_by: Reason = Reason.EXPLICIT_UPSTREAM
    model: str = ""
    tags: Mapping[str, str] = {}
    texts: tuple[str, ...] | None = ()
    """All that the model is given to read; None where the body cannot be read."""
    last_user: str = ""
    """What the user wrote last."""
    generates: bool = True
    """Whether an answer is generated: only then another model may stand in for cost or by default."""


class RuleSaid(Struct, frozen=True):
    """One rule's word on a request."""

    rule: str
    outcome: Literal["decides", "passes", "unable", "forbidden", "not reached"]
    """`passes`: nothing to say; `unable`: its upstream cannot take the request; `forbidden`: a keyword keeps it from there."""
    upstream: str
    """Where it sends the request, or would; empty where nowhere."""
    why: str
    """For people; quotes nothing of the request and no keyword."""


class Decision(Struct, frozen=True):
    """Where a request goes."""

    upstream: str
    """Name of a configured upstream; empty where none may take the request."""
    reasons: tuple[Reason, ...]
    rule: str
    """The rule that decided."""
    considered: tuple[RuleSaid, ...]
    """What every rule said, in order."""


class _Wish(Struct, frozen=True):
    rule: str
    reason: Reason
    names: tuple[str, ...] | None
    """Upstreams in order of preference; None where the rule has nothing to say."""
    why: str


def decide(question: Question, rules: RoutingRules) -> Decision:
    """Ask the rules in order; the first whose upstream may and can take the request decides."""
    kept_local, found = _kept_local(question, rules)
    able = {one.name for one in question.upstreams if one.takes}
    local = {one.name for one in question.upstreams if one.local}
    said: list[RuleSaid] = []
    upstream, rule = "", ""
    reasons: tuple[Reason, ...] = ()
    unable = False
    for wish in _wishes(question, rules, kept_local, found):
        if wish.names is None:
            said.append(RuleSaid(wish.rule, "passes", "", wish.why))
            continue
        first = wish.names[0] if wish.names else ""
        best = next((name for name in wish.names if name in able), "")
        if rule:
            said.append(RuleSaid(wish.rule, "not reached", best or first, wish.why))
        elif kept_local is not None and wish.rule not in KEEPING and (best or first) not in local:
            said.append(RuleSaid(wish.rule, "forbidden", best or first, f"{wish.why}; {found}, so it stays local"))
        elif best or wish.rule in KEEPING:
            upstream, rule = best, wish.rule
            reasons = (wish.reason,) if best and not unable else (wish.reason, Reason.CAPABILITY_MISSING)
            more = "" if best else "; no local upstream can take it, so it is refused"
            said.append(RuleSaid(wish.rule, "decides", best, wish.why + more))
        else:
            unable = True
            said.append(RuleSaid(wish.rule, "unable", first, f"{wish.why}; that upstream cannot take this request"))
    if not rule:
        upstream, rule = (question.usual if question.usual in able else ""), "default"
        reasons = (Reason.DEFAULT, Reason.CAPABILITY_MISSING)
    return Decision(upstream, reasons, rule, tuple(said))


def _wishes(question: Question, rules: RoutingRules, kept_local: Reason | None, found: str) -> Iterator[_Wish]:
    local = tuple(one.name for one in question.upstreams if one.local)
    if rules.force_local:
        yield _Wish("operator", Reason.OPERATOR_OVERRIDE, local, "an operator keeps everything local")
    asked = (question.asked,) if question.asked else None
    by = "the path" if question.asked_by is Reason.EXPLICIT_UPSTREAM else "a policy"
    yield _Wish("explicit", question.asked_by, asked, f"{by} names it" if asked else "nobody names an upstream")
    yield _Wish("model", Reason.EXPLICIT_MODEL, *_by_model(question, rules))
    yield _Wish("sensitivity", kept_local or Reason.SENSITIVE_KEYWORD_MATCH, local if kept_local else None, found)
    yield _Wish("tag", Reason.TAG_RULE, *_by_tag(question, rules))
    cheap, why = _is_cheap(question, rules)
    yield _Wish("cost", Reason.COST_PREFER_LOCAL, local if cheap else None, why)
    yield _Wish("default", Reason.DEFAULT, *_by_default(question, rules, local))


def _kept_local(question: Question, rules: RoutingRules) -> tuple[Reason | None, str]:
    """The reason for which the request must stay local, and what the rule says for people."""
    if not rules.keywords:
        return None, "no keyword is configured"
    if question.texts is None:
        return Reason.CONTENT_UNREADABLE, "the body cannot be read, so nobody knows that it holds no keyword"
    texts = (question.last_user,) if rules.last_user_only else question.texts
    number = find_keyword(texts, rules.keywords, whole_words=rules.whole_words)
    where = "what the user wrote last" if rules.last_user_only else "the conversation"
    if number is None:
        return None, f"none of {len(rules.keywords)} keywords is in {where}"
    return Reason.SENSITIVE_KEYWORD_MATCH, f"keyword {number + 1} of {len(rules.keywords)} is in {where}"


def _by_model(question: Question, rules: RoutingRules) -> tuple[tuple[str, ...] | None, str]:
    for pattern, upstream in rules.models:
        if question.model and matches(pattern, question.model):
            return (upstream,), f"the model is one of '{pattern}'"
    return None, "no upstream is configured for this model" if rules.models else "no model is configured"


def matches(pattern: str, name: str) -> bool:
    """Whether a name is what a pattern says, in which only `*` has a meaning of its own."""
    return name == pattern or ("*" in pattern and fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]")))


def _by_tag(question: Question, rules: RoutingRules) -> tuple[tuple[str, ...] | None, str]:
    for tag, upstream in rules.tags:
        name, separator, value = tag.partition(":")
        if name in question.tags and (not separator or question.tags[name] == value):
            return (upstream,), f"the request has the tag '{tag}'"
    return None, "the request has none of the tags" if rules.tags else "no tag is configured"


def _is_cheap(question: Question, rules: RoutingRules) -> tuple[bool, str]:
    if rules.by_usd:
        limit, price = rules.max_usd_for_local or 0.0, rules.input_usd_per_1m_tokens or 0.0
        usd = len(question.last_user) / rules.chars_per_token / 1_000_000 * price
        holds, measure = usd <= limit, f"what the user wrote last costs {usd:.6g} USD, and local is up to {limit:.6g} USD"
    elif rules.max_prompt_length_for_local is not None:
        length, longest = len(question.last_user), rules.max_prompt_length_for_local
        holds, measure = length <= longest, f"what the user wrote last has {length} characters, and local are up to {longest}"
    else:
        return False, "no cost is configured"
    return holds and question.generates, measure if question.generates else "nothing is generated"


def _by_default(question: Question, rules: RoutingRules, local: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    usual = (question.usual,) if question.usual else ()
    wanted = rules.default_provider
    if not wanted or not question.generates:
        return usual, "the usual upstream of its API"
    if any(one.name == wanted for one in question.upstreams):
        return (wanted,), f"the default is '{wanted}'"
    if wanted == LOCAL:
        return local, "the default is local"
    rest = tuple(one.name for one in question.upstreams if not one.local)
    return (*(name for name in usual if name not in local), *rest), "the default is public"
