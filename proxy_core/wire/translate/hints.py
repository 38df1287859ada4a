"""What a request asks of its own provider alone: what the answer costs, how long it is thought over, who pays for it.

Where another dialect cannot say such a thing, the translation goes on without it and names it; nothing that the model reads or
that the client is promised is on this list.
"""

from __future__ import annotations

HINTS = frozenset(
    {
        # of what was said before, and where it is kept
        "cache_control", "context_management", "keep_alive", "prompt_cache_key", "prompt_cache_options",
        "prompt_cache_retention", "store",
        # of speed and price
        "eager_input_streaming", "inference_geo", "prediction", "service_tier", "speed", "stream_options",
        # of how long it is thought over, which providers take for a target themselves
        "effort", "reasoning_effort", "thinking budget",
        # of the machine that a model of one's own runs on
        "low_vram", "main_gpu", "num_batch", "num_ctx", "num_gpu", "num_thread", "numa", "use_mlock", "use_mmap",
        # of who asks
        "metadata", "safety_identifier", "user",
        # of use to the provider that made it
        "thinking signature",
    }
)  # fmt: skip
"""Names of fields, and of losses as translations call them."""
