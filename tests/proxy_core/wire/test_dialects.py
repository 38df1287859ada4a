"""The raw path alone decides the API; a path that can be read in two ways is refused."""

from __future__ import annotations

import pytest

from proxy_core.wire.dialects import MAX_PATH_CHARS, Dialect, Operation, UnsafePath, find_endpoint

UPSTREAMS = (("groq", Dialect.OPENAI), ("gpu-box", Dialect.OLLAMA), ("claude", Dialect.ANTHROPIC))


@pytest.mark.parametrize(
    ("path", "dialect", "operation", "api_path"),
    [
        ("/v1/chat/completions", Dialect.OPENAI, Operation.CHAT, "/v1/chat/completions"),
        ("/v1/completions", Dialect.OPENAI, Operation.COMPLETIONS, "/v1/completions"),
        ("/v1/embeddings", Dialect.OPENAI, Operation.EMBEDDINGS, "/v1/embeddings"),
        ("/v1/responses", Dialect.OPENAI, Operation.RESPONSES, "/v1/responses"),
        ("/v1/responses/resp_1/input_items", Dialect.OPENAI, Operation.OTHER, "/v1/responses/resp_1/input_items"),
        ("/v1/models", Dialect.OPENAI, Operation.MODELS, "/v1/models"),
        ("/v1/messages", Dialect.ANTHROPIC, Operation.MESSAGES, "/v1/messages"),
        ("/v1/messages/count_tokens", Dialect.ANTHROPIC, Operation.COUNT_TOKENS, "/v1/messages/count_tokens"),
        ("/v1/messages/batches", Dialect.ANTHROPIC, Operation.OTHER, "/v1/messages/batches"),
        ("/v1/messagesx", Dialect.OPENAI, Operation.OTHER, "/v1/messagesx"),
        ("/openai/v1/chat/completions", Dialect.OPENAI, Operation.CHAT, "/v1/chat/completions"),
        ("/openai/chat/completions", Dialect.OPENAI, Operation.CHAT, "/v1/chat/completions"),
        ("/anthropic/v1/messages", Dialect.ANTHROPIC, Operation.MESSAGES, "/v1/messages"),
        ("/anthropic/messages", Dialect.ANTHROPIC, Operation.MESSAGES, "/v1/messages"),
        ("/anthropic/v1/files", Dialect.ANTHROPIC, Operation.OTHER, "/v1/files"),
        ("/api/chat", Dialect.OLLAMA, Operation.OLLAMA_CHAT, "/api/chat"),
        ("/api/generate", Dialect.OLLAMA, Operation.OLLAMA_GENERATE, "/api/generate"),
        ("/api/embed", Dialect.OLLAMA, Operation.OLLAMA_EMBED, "/api/embed"),
        ("/api/tags", Dialect.OLLAMA, Operation.MODELS, "/api/tags"),
        ("/ollama/api/chat", Dialect.OLLAMA, Operation.OLLAMA_CHAT, "/api/chat"),
        ("/v1/tasks/sky", Dialect.OPENAI, Operation.OTHER, "/v1/tasks/sky"),
        ("/v1/files/a%2Fb", Dialect.OPENAI, Operation.OTHER, "/v1/files/a%2Fb"),
    ],
)
def test_paths(path: str, dialect: Dialect, operation: Operation, api_path: str) -> None:
    endpoint = find_endpoint(path, False, UPSTREAMS)
    assert endpoint is not None
    assert (endpoint.dialect, endpoint.operation, endpoint.path) == (dialect, operation, api_path)
    assert endpoint.upstream is None


@pytest.mark.parametrize(
    ("path", "upstream", "api", "dialect", "api_path"),
    [
        ("/groq/v1/chat/completions", "groq", Dialect.OPENAI, Dialect.OPENAI, "/v1/chat/completions"),
        ("/groq/chat/completions", "groq", Dialect.OPENAI, Dialect.OPENAI, "/v1/chat/completions"),
        ("/gpu-box/api/chat", "gpu-box", Dialect.OLLAMA, Dialect.OLLAMA, "/api/chat"),
        ("/gpu-box/v1/chat/completions", "gpu-box", Dialect.OLLAMA, Dialect.OPENAI, "/v1/chat/completions"),
        ("/claude/v1/models", "claude", Dialect.ANTHROPIC, Dialect.ANTHROPIC, "/v1/models"),
    ],
)
def test_the_first_segment_names_an_upstream(path: str, upstream: str, api: Dialect, dialect: Dialect, api_path: str) -> None:
    endpoint = find_endpoint(path, False, UPSTREAMS)
    assert endpoint is not None
    assert (endpoint.upstream, endpoint.api, endpoint.dialect, endpoint.path) == (upstream, api, dialect, api_path)


@pytest.mark.parametrize(
    ("path", "workflow", "api_path", "upstream"),
    [
        ("/agent-workflow/nightly/v1/messages", "nightly", "/v1/messages", None),
        ("/agent-workflow/a%20b%2Fc/openai/v1/chat/completions", "a b/c", "/v1/chat/completions", None),
        ("/agent-workflow/w/anthropic/v1/messages", "w", "/v1/messages", None),
        ("/agent-workflow/w/groq/v1/models", "w", "/v1/models", "groq"),
        ("/agent-workflow/w/api/chat", "w", "/api/chat", None),
        ("/agent-workflow/" + "w" * 300 + "/v1/files/a%2Fb", "w" * 200, "/v1/files/a%2Fb", None),
        ("/agent-workflow/%E2%80%AEx%1B/v1/models", "?x?", "/v1/models", None),
    ],
)
def test_a_workflow_stands_before_any_path(path: str, workflow: str, api_path: str, upstream: str | None) -> None:
    endpoint = find_endpoint(path, False, UPSTREAMS)
    assert endpoint is not None
    assert (endpoint.workflow, endpoint.path, endpoint.upstream) == (workflow, api_path, upstream)


def test_the_shared_models_list_follows_the_version_header() -> None:
    for path in ("/v1/models", "/v1/models/some-model"):
        endpoint = find_endpoint(path, True, ())
        assert endpoint is not None
        assert endpoint.dialect is Dialect.ANTHROPIC
    chat = find_endpoint("/v1/chat/completions", True, ())
    assert chat is not None
    assert chat.dialect is Dialect.OPENAI


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/api",
        "/v2/chat",
        "/metrics",
        "/groqq/v1/models",
        "/agent-workflow/w",
        "/agent-workflow/w/",
        "/agent-workflow/a/agent-workflow/b/v1/models",
    ],
)
def test_unknown_paths_have_no_endpoint(path: str) -> None:
    assert find_endpoint(path, False, UPSTREAMS) is None


@pytest.mark.parametrize(
    "path",
    [
        "/v1//models",
        "//v1/models",
        "/v1/../admin",
        "/v1/./models",
        "/v1/%2e%2e/admin",
        "/v1/.%2E/admin",
        "/v1/models/..",
        "/v1/..%2fadmin",
        "/v1/a%00b",
        "/v1/a%0Ab",
        "/v1/a%0d",
        "/v1/a%252e",
        "/v1/a;b",
        "/v1/a%3Bb",
        "/v1\\models",
        "/v1/%5cmodels",
        "/v1/a b",
        "/v1/\u017f",
        "/v1/\U0001f600",
        "/v1/" + "a" * MAX_PATH_CHARS,
        "/agent-workflow//v1/models",
        "/agent-workflow/../v1/models",
    ],
)
def test_paths_that_can_be_read_in_two_ways_are_refused(path: str) -> None:
    with pytest.raises(UnsafePath):
        find_endpoint(path, False, UPSTREAMS)
