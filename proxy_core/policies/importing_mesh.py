"""Policy Mesh's rules: which prompts stay local.

They become the section `routing`, with the same order and the same comparisons: a keyword anywhere in the last message that a
user wrote, then its length (or what that length would cost), then the default. `local` is the first local upstream, `public`
the one that the path of the request asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy_core.policies.importing_source import Source, literal

DEFAULT_CHARS = 1000
SECTIONS = ("sensitivity", "cost", "default_provider")


def translate(value: dict[str, Any], source: Source, environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that mean the same."""
    routing = rules(value, source)
    provider = value.get("default_provider")
    if provider not in ("local", "public"):
        source.note(f"default_provider {provider!r} meant local there, and does here")
    elif provider == "public" and "anthropic" in environ.get("PUBLIC_LLM_URL", ""):
        source.note("public was Anthropic (PUBLIC_LLM_URL); here a request goes to the provider whose API its client speaks")
    source.note(
        "local is the first upstream of api ollama or with `local: true`, public the one that a request's path asks for; "
        "LOCAL_LLM_URL, LOCAL_LLM_API_KEY, PUBLIC_LLM_URL and PUBLIC_LLM_API_KEY of the environment are understood"
    )
    source.note(
        "keywords are looked for as there, also within words and in the last message of the user alone; "
        "`match: word` and `scope: conversation` are safer"
    )
    return {"routing": literal(routing)}


def rules(value: dict[str, Any], source: Source) -> dict[str, Any]:
    """The section `routing` that means the same, with texts as they are."""
    top = source.section(value, "$", SECTIONS, open_ended=True)
    for name in ("sensitivity", "cost"):
        if name not in top:
            source.refuse(f"$.{name}", "missing; it has to be an object")
    sensitivity = source.section(top.get("sensitivity"), "$.sensitivity", ("keywords",))
    if "keywords" not in sensitivity:
        source.refuse("$.sensitivity.keywords", "missing; it has to be a list of texts")
    keywords = _keywords(sensitivity.get("keywords"), source)
    cost = _cost(top.get("cost"), source)
    provider = top.get("default_provider")
    if provider is not None and not isinstance(provider, str):
        source.refuse("$.default_provider", "has to be local or public")
    return {
        "sensitivity": {"keywords": keywords, "match": "substring", "scope": "last_user"},
        "cost": cost,
        "default_provider": "public" if provider == "public" else "local",
    }


def _keywords(value: Any, source: Source) -> list[str]:
    found = []
    for at, keyword in enumerate(source.items(value, "$.sensitivity.keywords")):
        if not isinstance(keyword, str):
            source.refuse(f"$.sensitivity.keywords[{at}]", "has to be a text")
        elif word := keyword.strip().lower():
            found.append(word)
    return list(dict.fromkeys(found))


def _cost(value: Any, source: Source) -> dict[str, Any]:
    """The section of cost. Of a limit in USD and a price one alone had no meaning."""
    known = (
        "max_prompt_length_for_local",
        "max_usd_for_local",
        "input_usd_per_1m_tokens",
        "input_usd_per_1k_tokens",
        "chars_per_token",
    )
    cost = source.section(value, "$.cost", known)
    found = {
        "max_prompt_length_for_local": source.number(cost.get(known[0], DEFAULT_CHARS), f"$.cost.{known[0]}", whole=True),
        "max_usd_for_local": source.number(cost.get(known[1]), f"$.cost.{known[1]}"),
        "input_usd_per_1m_tokens": source.number(cost.get(known[2]), f"$.cost.{known[2]}", above=True),
        "chars_per_token": source.number(cost.get(known[4], 4), f"$.cost.{known[4]}", low=1),
    }
    old = source.number(cost.get(known[3]), f"$.cost.{known[3]}", above=True)
    if found["input_usd_per_1m_tokens"] is None and old is not None:
        found["input_usd_per_1m_tokens"] = old * 1000
    return {name: value for name, value in found.items() if value is not None}
