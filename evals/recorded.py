"""Recorded HTTP interactions, read from the data folder and mapped to the gateway's own paths.

Only rows of the OpenAI, Anthropic and Ollama APIs are taken; the others are counted with the reason why not.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy_core.policy_mesh import PATHS as OWN_PATHS

_PREFIXES = re.compile(
    r"^(?:/api(?=/v1/)|/openai(?=/v1/)|/inference(?=/v1/)|/gateway/[^/]+|/proxy/[^/]+|/ollama(?=/)|/serverless(?=/)|/v1/inference)"
)
_AZURE = re.compile(r"^/openai/deployments/[^/]+(/.+)$")
_KNOWN_TAIL = re.compile(r"^.*?/(chat/completions|completions|embeddings|responses)$")
_FOREIGN = ("gemini", "bedrock", "vertex")


@dataclass
class Exchange:
    """One recorded request with its response."""

    name: str
    provider: str
    api: str
    reader: str | None
    """The plain reader's word for the API; None where bodies are carried unread."""
    method: str
    path: str
    query: str
    request_headers: list[tuple[str, str]]
    request_body: bytes
    status: int
    response_headers: list[tuple[str, str]]
    response_body: bytes
    streamed: bool
    agent: str | None = None
    host: str = ""
    """Where it was sent; empty where that was not recorded."""


_READERS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "count_tokens",
    "/api/chat": "ollama",
    "/api/generate": "ollama",
}


def load(folder: Path, left_out: Counter[str]) -> Iterator[Exchange]:
    """Every usable row of the three sets, in order; reasons for the others are counted in `left_out`."""
    for name in ("cassettes", "errors", "agent_cli_traffic"):
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                exchange = _exchange(f"{name}:{number}", json.loads(line), left_out)
                if exchange is not None:
                    yield exchange


def _exchange(name: str, row: dict[str, Any], left_out: Counter[str]) -> Exchange | None:
    provider = row.get("provider") or "agents"
    api = row.get("api") or row["path"]
    if api.startswith(_FOREIGN):
        left_out[f"{api}: not an OpenAI, Anthropic or Ollama API"] += 1
        return None
    path = _gateway_path(row.get("path") or None, api)
    if path is None:
        left_out[f"{provider} {api}: its path is no path of the three APIs"] += 1
        return None
    if path.partition("?")[0] in OWN_PATHS:
        left_out[f"{provider} {api}: luthien serves {path} itself; behind an upstream's name it passes"] += 1
        return None
    method = (row.get("method") or "POST").upper()
    status = row.get("status")
    if status is None:
        left_out["no status was recorded"] += 1
        return None
    if "body" in row and "response_body" not in row:
        response_body = row["body"].encode()
    elif row.get("response_body") is None:
        left_out["no response body was recorded"] += 1
        return None
    else:
        response_body = _bytes(row["response_body"], row.get("response_body_encoding"))
    content_type = _value(row.get("response_headers") or row.get("headers") or {}, "content-type")
    streamed = bool(row.get("stream")) or content_type.startswith("text/event-stream")
    return Exchange(
        name=f"{name} {row.get('id', '')}".strip(),
        provider=provider,
        api=api,
        reader=_READERS.get(path),
        method=method,
        path=path,
        query=row.get("query") or "",
        request_headers=_headers(row.get("request_headers") or {}),
        request_body=_bytes(row.get("request_body") or "", row.get("request_body_encoding")),
        status=int(status),
        response_headers=_headers(row.get("response_headers") or row.get("headers") or {}),
        response_body=response_body,
        streamed=streamed,
        agent=row.get("client"),
        host=row.get("host") or "",
    )


_API_PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-completions": "/v1/completions",
    "openai-responses": "/v1/responses",
    "embeddings": "/v1/embeddings",
    "anthropic-messages": "/v1/messages",
    "ollama-chat": "/api/chat",
    "ollama-generate": "/api/generate",
}


def _gateway_path(path: str | None, api: str) -> str | None:
    """The path under which the gateway knows the same operation."""
    if path is None:
        return _API_PATHS.get(api)
    azure = _AZURE.match(path)
    if azure:
        return "/v1" + azure.group(1)
    path = _PREFIXES.sub("", path) if not path.startswith("/api/") or path.startswith("/api/v1/") else path
    if path.startswith(("/v1/", "/api/")):
        return path
    tail = _KNOWN_TAIL.match(path)
    return f"/v1/{tail.group(1)}" if tail else None


def _headers(headers: dict[str, Any]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in headers.items():
        pairs.extend((name, str(one)) for one in (value if isinstance(value, list) else [value]))
    return pairs


def _value(headers: dict[str, Any], name: str) -> str:
    for key, value in headers.items():
        if key.lower() == name:
            return str(value[0] if isinstance(value, list) else value)
    return ""


def _bytes(text: str, encoding: str | None) -> bytes:
    return base64.b64decode(text) if encoding == "base64" else text.encode("utf-8", "surrogatepass")
