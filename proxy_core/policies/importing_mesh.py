"""Policy Mesh's rules: which prompts stay local.

They become one `branching` policy, with the same order and the same comparisons: a keyword in the last message that a user
wrote, then its length (or what that length would cost), then the default. `local` is the upstream `ollama`, `public` is the
upstream that the path of the request asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy_core.policies.importing_source import Source, literal

LOCAL = "ollama"
PROMPT = "request.last_user_text"
CHATS = ("chat", "ollama_chat")
"""The operations that the rule of cost is for: it had no other, and a local model would not be the same for embeddings."""
LONGEST = 2**40
DEFAULT_CHARS = 1000


def translate(value: dict[str, Any], source: Source, environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that mean the same."""
    top = source.section(value, "$", ("sensitivity", "cost", "default_provider"))
    for name in ("sensitivity", "cost"):
        if name not in top:
            source.refuse(f"$.{name}", "missing; it has to be an object")
    sensitivity = source.section(top.get("sensitivity"), "$.sensitivity", ("keywords",))
    if "keywords" not in sensitivity:
        source.refuse("$.sensitivity.keywords", "missing; it has to be a list of texts")
    keywords = _keywords(sensitivity.get("keywords"), source)
    branches = []
    if keywords:
        branches.append({"if": _any_of(keywords), "then": _local("sensitive_keyword_match")})
    longest = _longest(top.get("cost"), source)
    if longest is not None:
        branches.append({"if": _no_longer_than(longest), "then": _local("cost_prefer_local")})
    params: dict[str, Any] = {"branches": branches}
    provider = top.get("default_provider")
    if provider is not None and not isinstance(provider, str):
        source.refuse("$.default_provider", "has to be local or public")
    if provider != "public":
        params["default"] = _local("default")
        if provider != "local":
            source.note(f"default_provider {provider!r} meant local there, and does here")
    elif "anthropic" in environ.get("PUBLIC_LLM_URL", ""):
        source.note("public was Anthropic (PUBLIC_LLM_URL); here a request goes to the provider whose API its client speaks")
    source.note(
        "local is the upstream 'ollama', public the one that a request's path asks for; the addresses and keys of "
        "LOCAL_LLM_URL, LOCAL_LLM_API_KEY, PUBLIC_LLM_URL and PUBLIC_LLM_API_KEY belong into the section `upstreams`"
    )
    source.note("a request in Anthropic's form cannot go to 'ollama': where a rule says local, it is denied")
    return {"policies": [{"use": "branching", "name": "routing", "params": params}]}


def _local(reason: str) -> dict[str, Any]:
    return {"use": "set_backend", "params": {"upstream": LOCAL, "reason": reason}}


def _keywords(value: Any, source: Source) -> list[str]:
    found = []
    for at, keyword in enumerate(source.items(value, "$.sensitivity.keywords")):
        if not isinstance(keyword, str):
            source.refuse(f"$.sensitivity.keywords[{at}]", "has to be a text")
        elif word := keyword.strip().lower():
            found.append(word)
    return list(dict.fromkeys(found))


def _any_of(keywords: list[str]) -> dict[str, Any]:
    left = {"path": PROMPT, "transform": "lower"}
    conditions = [{"type": "contains", "left": left, "right": literal(word)} for word in keywords]
    return conditions[0] if len(conditions) == 1 else {"type": "any", "conditions": conditions}


def _no_longer_than(chars: int) -> dict[str, Any]:
    chats = [{"type": "equals", "left": {"path": "operation"}, "right": name} for name in CHATS]
    left = {"path": PROMPT, "transform": "length"}
    short = {"type": "less_than_or_equal", "left": left, "right": chars}
    return {"type": "all", "conditions": [{"type": "any", "conditions": chats}, short]}


def _longest(value: Any, source: Source) -> int | None:
    """The longest prompt, in characters, that the rule of cost keeps local."""
    known = (
        "max_prompt_length_for_local",
        "max_usd_for_local",
        "input_usd_per_1m_tokens",
        "input_usd_per_1k_tokens",
        "chars_per_token",
    )
    cost = source.section(value, "$.cost", known)
    longest = source.number(cost.get(known[0], DEFAULT_CHARS), f"$.cost.{known[0]}", whole=True)
    usd = source.number(cost.get(known[1]), f"$.cost.{known[1]}")
    price = source.number(cost.get(known[2]), f"$.cost.{known[2]}", above=True)
    if price is None and (old := source.number(cost.get(known[3]), f"$.cost.{known[3]}", above=True)) is not None:
        price = old * 1000
    chars = source.number(cost.get(known[4], 4), f"$.cost.{known[4]}", low=1)
    if usd is None or price is None or chars is None:
        return longest if longest is None else int(longest)
    return longest_below(float(usd), float(price), float(chars))


def longest_below(usd: float, price: float, chars_per_token: float) -> int:
    """The greatest length for which `length / chars_per_token / 1e6 * price <= usd` holds, in the same arithmetic."""
    low, high = 0, LONGEST
    while low < high:
        middle = (low + high + 1) // 2
        if middle / chars_per_token / 1_000_000 * price <= usd:
            low = middle
        else:
            high = middle - 1
    return low
