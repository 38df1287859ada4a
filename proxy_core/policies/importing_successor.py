"""Luthien Proxy's policy file: `policy: {class: "module:Class", config: {…}}`.

Classes are known by their name alone; nothing of the module is ever imported. A series at the top becomes the chain itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy_core.policies.importing_control import named_apart
from proxy_core.policies.importing_source import Source, literal
from proxy_core.policies.registry import nearest

JUDGE_KEYS = (
    "model",
    "api_base",
    "temperature",
    "max_tokens",
    "max_retries",
    "retry_delay",
    "on_error",
    "inference_provider",
    "auth_provider",
)
CLASSES: dict[str, tuple[str, tuple[str, ...]]] = {
    "NoOpPolicy": ("noop", ()),
    "SimpleNoOpPolicy": ("noop", ()),
    "MultiSerialPolicy": ("serial", ("policies",)),
    "StringReplacementPolicy": ("string_replacement", ("replacements", "match_capitalization", "apply_to")),
    "ToolCallJudgePolicy": (
        "tool_call_judge",
        ("probability_threshold", "judge_instructions", "blocked_message_template", *JUDGE_KEYS),
    ),
    "SimpleLLMPolicy": ("simple_llm", ("instructions", *JUDGE_KEYS)),
    "DogfoodSafetyPolicy": ("tool_allow_deny", ("blocked_patterns", "tool_names", "blocked_message")),
    "BlockDangerousCommandsPolicy": ("block_dangerous_commands", JUDGE_KEYS),
    "BlockSensitiveFileWritesPolicy": ("block_sensitive_file_writes", JUDGE_KEYS),
    "BlockWebRequestsPolicy": ("block_web_requests", JUDGE_KEYS),
    "DebugLoggingPolicy": ("request_logging", ()),
}
"""Their classes: our policy, and the settings that theirs takes."""
WITHOUT_COUNTERPART = (
    "AllCapsPolicy",
    "ConversationLinkPolicy",
    "OnboardingPolicy",
    "HackathonOnboardingPolicy",
    "HackathonPolicy",
    "SamplePydanticPolicy",
    "DemoForceBashRmRfPolicy",
    "PreferUvPolicy",
    "NoYappingPolicy",
    "NoApologiesPolicy",
    "PlainDashesPolicy",
    "DeAIPolicy",
    "MultiParallelPolicy",
    "ParallelRulesPolicy",
    "SimpleJudgePolicy",
)
JUDGE_MODEL = "claude-haiku-4-5"
SHELLS = ("Bash", "bash", "shell", "terminal", "execute", "run_command")


def translate(value: dict[str, Any], source: Source, environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings that mean the same."""
    source.section(value, "$", ("policy",))
    policy = _policy(value["policy"], "$.policy", source)
    entries = named_apart(_flat([policy] if policy else []))
    return {**source.upstreams(), "policies": entries}


def _flat(policies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for one in policies:
        found += _flat(one["params"]["policies"]) if one.get("use") == "serial" else [one] if one else []
    return found


def _policy(value: Any, place: str, source: Source) -> dict[str, Any]:
    """One policy; empty where it is refused."""
    one = source.section(value, place, ("class", "config"))
    reference = source.text(one.get("class"), f"{place}.class")
    if not reference:
        return {}
    name = re.split(r"[:.]", reference)[-1]
    if name in WITHOUT_COUNTERPART:
        source.refuse(f"{place}.class", f"{name} has no counterpart here; remove it, or write one (docs/writing-policies.md)")
        return {}
    if name not in CLASSES:
        near = nearest(name, CLASSES)
        hint = f"did you mean {near}?" if near else f"known are {', '.join(CLASSES)}"
        source.refuse(f"{place}.class", f"no policy class is called {name!r}; {hint}")
        return {}
    use, known = CLASSES[name]
    config, here = one.get("config"), f"{place}.config"
    if isinstance(config, dict) and config.keys() == {"config"}:
        config, here = config["config"], f"{here}.config"
    params = _params(use, source.section(config, here, known), here, source)
    return {"use": use, "params": params} if params else {"use": use}


def _params(use: str, config: dict[str, Any], place: str, source: Source) -> dict[str, Any]:
    match use:
        case "serial":
            inner = source.items(config.get("policies"), f"{place}.policies")
            return {"policies": [_policy(one, f"{place}.policies[{at}]", source) for at, one in enumerate(inner)]}
        case "tool_call_judge":
            return {**_judge(config, place, source), "view": "calls"}
        case "simple_llm":
            return _judge(config, place, source)
        case "tool_allow_deny":
            return _patterns(config, place, source)
        case "block_dangerous_commands" | "block_sensitive_file_writes" | "block_web_requests":
            source.note(f"{use} decides by rules here, not by a model: settings of a judge are left out")
            return {}
    made: dict[str, Any] = literal({key: value for key, value in config.items() if value is not None})
    return made


def _judge(config: dict[str, Any], place: str, source: Source) -> dict[str, Any]:
    renamed = {
        "probability_threshold": "threshold",
        "temperature": "temperature",
        "max_tokens": "max_tokens",
        "max_retries": "max_retries",
        "judge_instructions": "instructions",
        "instructions": "instructions",
        "blocked_message_template": "blocked_message_template",
    }
    model = config.get("model") or JUDGE_MODEL
    upstream = "anthropic"
    if config.get("api_base"):
        api_base = source.text(config["api_base"], f"{place}.api_base")
        upstream = source.upstream(api_base, "anthropic", f"{place}.api_base") if api_base else upstream
    made: dict[str, Any] = {"upstream": upstream, "model": literal(model)}
    made |= {renamed[key]: literal(config[key]) for key in renamed if config.get(key) is not None}
    if isinstance(template := made.get("blocked_message_template"), str):
        # a format such as {probability:.2f} stands there for the bare number here
        made["blocked_message_template"] = re.sub(r"\{(\w+):[^{}]*\}", r"{\1}", template)
    if config.get("on_error") == "pass":
        source.refuse(
            f"{place}.on_error", "a judge that fails passes nothing here; write on_error into the luthien configuration"
        )
    if config.get("retry_delay") is not None:
        source.note("retry_delay is left out: the pause between two tries of the judge is luthien's own")
    provider = config.get("inference_provider", config.get("auth_provider", "user_credentials"))
    if provider != "user_credentials":
        source.note(f"the judge used credentials of its own; write their key into upstreams.{upstream}.api_key")
    return made


def _patterns(config: dict[str, Any], place: str, source: Source) -> dict[str, Any]:
    """Patterns of commands, as rules on the argument `command` of each tool."""
    patterns = source.items(config.get("blocked_patterns"), f"{place}.blocked_patterns")
    if not patterns:
        source.refuse(
            f"{place}.blocked_patterns", "its own patterns protect Luthien Proxy itself; write down what is to be blocked here"
        )
    tools = source.items(config.get("tool_names"), f"{place}.tool_names") or list(SHELLS)
    rules = []
    for at, pattern in enumerate(patterns):
        try:
            re.compile(pattern)
        except (re.error, TypeError, RecursionError, OverflowError) as fault:
            source.refuse(f"{place}.blocked_patterns[{at}]", f"is no regular expression: {fault}")
            continue
        expression = literal(f"(?i-s:{pattern})")
        rules += [{"tool": literal(tool), "arguments": {"command": expression}} for tool in tools]
    if config.get("blocked_message") is not None:
        source.note("blocked_message is left out: the notice in place of a blocked call is luthien's own")
    return {"rules": rules, "default": "allow"}
