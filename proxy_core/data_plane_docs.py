"""The page that the data plane serves at /docs: where clients connect, and luthien's own paths there.

Plain HTML without a script and without anything from elsewhere; it tells nothing of this gateway's configuration.
"""

from __future__ import annotations

from html import escape

CLIENTS = (
    ("OpenAI", "/v1", "chat completions, responses, embeddings, models, and anything else of the API"),
    ("Anthropic", "/", "messages, token counts, batches, models; also under /anthropic"),
    ("Ollama", "/", "its own /api/…; also under /ollama"),
    ("one upstream", "/NAME", "the upstream of that name, in its own API"),
)
"""Client, base URL below the gateway's root, what it finds there."""
PATHS = (
    ("POST /v1/chat", "A chat of Policy Mesh: {messages: [{role, content}], model?}. Always 200 with {request_id, provider, "
     "reason_codes, content, error}; 422 where it is no chat."),
    ("GET /v1/routes", "The rules in force in Policy Mesh's terms, without keywords and keys."),
    ("GET /v1/audit/{request_id}", "What became of a chat: {request_id, decision, status, latency_ms, failure_category, "
     "prompt_hash, prompt_length, created_at}; 404 where nothing is known."),
    ("GET /v1/health", '{"status": "ok"}'),
    ("GET /v1/metrics, /metrics", "Figures in Prometheus' text format."),
    ("GET /health", "State, version, journal, and what runs."),
    ("GET /livez, /healthz, /health/liveness", "200 while the process answers."),
    ("GET /readyz, /health/readiness", "503 while the gateway drains or cannot record."),
    ("GET /config", "The settings in force, without secrets."),
)  # fmt: skip
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "code{font:13px/1.4 ui-monospace,monospace}td{padding:.3rem 1rem .3rem 0;vertical-align:top}"
)


def page(version: str) -> str:
    """The whole page."""
    clients = "".join(
        f"<tr><td>{escape(name)}</td><td><code>{escape(root)}</code></td><td>{escape(meaning)}</td></tr>"
        for name, root, meaning in CLIENTS
    )
    paths = "".join(f"<tr><td><code>{escape(path)}</code></td><td>{escape(meaning)}</td></tr>" for path, meaning in PATHS)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>luthien</title><style>{_STYLE}</style></head><body>'
        f"<h1>luthien {escape(version)}</h1><h2>Base URLs</h2><table>{clients}</table>"
        f"<h2>Own paths</h2><table>{paths}</table><p>The control API has a page of its own at its port.</p></body></html>"
    )
