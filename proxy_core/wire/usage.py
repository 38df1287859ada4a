"""Token counts as each API reports them, normalised as `Usage` says.

Takes decoded JSON of any type; a count that is missing, negative, too large or no integer is None, never 0.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from proxy_core.wire.conversation import Usage
from proxy_core.wire.tolerant_json import JsonObject, as_count, as_object, total

_NOTHING = Usage()


def chat_usage(value: Any) -> Usage | None:
    """`usage` of Chat Completions, legacy completions and everything that imitates them."""
    if not isinstance(value, dict):
        return None
    prompt = as_object(value.get("prompt_tokens_details"))
    completion = as_object(value.get("completion_tokens_details"))
    output = as_count(value.get("completion_tokens"))
    reasoning = as_count(completion.get("reasoning_tokens"))
    input_tokens = as_count(value.get("prompt_tokens"))
    if reasoning and output is not None and input_tokens is not None:
        with_reasoning = total(output, reasoning)
        # Some upstreams count reasoning beside the completion; their total tells.
        if with_reasoning is not None and value.get("total_tokens") == input_tokens + with_reasoning:
            output = with_reasoning
    cached = as_count(prompt.get("cached_tokens"))
    if cached is None:
        cached = _first(value, "prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens", "cache_read_input_tokens")
    written = as_count(prompt.get("cache_write_tokens"))
    if written is None:
        written = _first(value, "cache_creation_input_tokens")
    counts = Usage(input_tokens, output, cached, written, reasoning)
    audio = as_count(prompt.get("audio_tokens")), as_count(completion.get("audio_tokens"))
    if any(audio):
        counts = replace(counts, input_audio_tokens=audio[0] or None, output_audio_tokens=audio[1] or None)
    return reported(counts)


def embeddings_usage(value: Any) -> Usage | None:
    """`usage` of embeddings; some upstreams report a total only, which is input."""
    usage = chat_usage(value)
    if usage is not None and usage.input_tokens is not None:
        return usage
    tokens = as_count(as_object(value).get("total_tokens"))
    return None if tokens is None else Usage(input_tokens=tokens)


def responses_usage(value: Any) -> Usage | None:
    """`usage` of Responses."""
    if not isinstance(value, dict):
        return None
    if "input_tokens" not in value and "prompt_tokens" in value:
        return chat_usage(value)
    input_details = as_object(value.get("input_tokens_details"))
    output_details = as_object(value.get("output_tokens_details"))
    return reported(
        Usage(
            as_count(value.get("input_tokens")),
            as_count(value.get("output_tokens")),
            as_count(input_details.get("cached_tokens")),
            as_count(input_details.get("cache_write_tokens")),
            as_count(output_details.get("reasoning_tokens")),
        )
    )


def messages_usage(value: JsonObject) -> Usage | None:
    """`usage` of Messages, whose wire number of input tokens excludes cache reads and writes."""
    elsewhere: list[tuple[str, Usage]] = []
    iterations = value.get("iterations")
    if isinstance(iterations, list):
        value = _summed(value, [one for one in iterations if isinstance(one, dict)], elsewhere)
    uncached = as_count(value.get("input_tokens"))
    cached = as_count(value.get("cache_read_input_tokens"))
    written = as_count(value.get("cache_creation_input_tokens"))
    output_details = as_object(value.get("output_tokens_details"))
    counts = Usage(
        None if uncached is None else total(uncached, cached, written),
        as_count(value.get("output_tokens")),
        cached,
        written,
        as_count(output_details.get("thinking_tokens")),
    )
    for_an_hour = as_count(as_object(value.get("cache_creation")).get("ephemeral_1h_input_tokens"))
    searches = as_count(as_object(value.get("server_tool_use")).get("web_search_requests"))
    if for_an_hour or searches or elsewhere:
        counts = replace(
            counts,
            cache_write_1h_tokens=for_an_hour or None,
            web_searches=searches or None,
            elsewhere=tuple(elsewhere),
        )
    return at_tier(reported(counts), value.get("service_tier"))


_SUMMED = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def _summed(value: JsonObject, iterations: list[JsonObject], elsewhere: list[tuple[str, Usage]]) -> JsonObject:
    """`value` with the sums over all that was done for the answer: its own counts leave out what compacting and advice took.

    What another model did is added to `elsewhere`.
    """
    own = []
    for one in iterations:
        model = one.get("model")
        if isinstance(model, str) and one.get("type") not in ("message", "compaction"):
            used = messages_usage({name: count for name, count in one.items() if name != "iterations"})
            if used is not None:
                elsewhere.append((model, used))
        else:
            own.append(one)
    if len(own) < 2:
        return value
    sums: JsonObject = {name: total(*[as_count(one.get(name)) for one in own]) for name in _SUMMED}
    hours = total(*[as_count(as_object(one.get("cache_creation")).get("ephemeral_1h_input_tokens")) for one in own])
    return {**value, **sums, "cache_creation": {"ephemeral_1h_input_tokens": hours}}


def ollama_usage(prompt_eval_count: Any, eval_count: Any) -> Usage | None:
    """The counts of Ollama's last line."""
    return reported(Usage(as_count(prompt_eval_count), as_count(eval_count)))


def reported(usage: Usage) -> Usage | None:
    """None where nothing was reported."""
    return None if usage == _NOTHING else usage


_TIERS = frozenset({"priority", "flex", "batch"})


def at_tier(usage: Usage | None, tier: Any) -> Usage | None:
    """The usage with the tier that the answer says it was served at, where that is not the usual one."""
    if usage is None or type(tier) is not str or tier not in _TIERS:
        return usage
    return replace(usage, tier=tier)


def _first(value: JsonObject, *keys: str) -> int | None:
    for key in keys:
        count = as_count(value.get(key))
        if count is not None:
            return count
    return None
