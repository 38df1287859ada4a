"""Files of other programs: what each means here, and what is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy_core.errors import ConfigurationError
from proxy_core.policies.chain import Chain, Shadows, build_chains
from proxy_core.policies.importing import Imported, import_file, import_text
from proxy_core.policies.testing import FakeServices, context_for
from proxy_core.routing.reasons import Reason
from proxy_core.routing.router import Router
from proxy_core.routing.upstreams import Choice, Upstreams
from proxy_core.settings import Settings
from proxy_core.settings_sources import load
from proxy_core.transaction import Route
from proxy_core.wire.dialects import Dialect, Endpoint, Operation


def imported(value: Any, **environ: str) -> Imported:
    return import_text(value if isinstance(value, str) else json.dumps(value), environ)


def refused(value: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        imported(value)
    return str(caught.value).splitlines()


def settings_of(found: Imported, folder: Path, **environ: str) -> Settings:
    file = folder / "imported.yaml"
    file.write_text(found.text, "utf-8")
    return load(file, {}, environ, None).settings


def chain_of(found: Imported, folder: Path) -> Chain:
    return build_chains(settings_of(found, folder)).default


async def routed(chain: Chain, text: str, operation: Operation = Operation.CHAT) -> tuple[str, Route]:
    context = context_for(operation, text=text, services=FakeServices())
    await chain.run_request(context, Shadows(lambda verdicts: None))
    return context.route.upstream, context.route


# -- Luthien Control --------------------------------------------------------------------------------------------------

CONTROL = [
    {"type": "ClientApiKeyAuth", "config": {"name": "check"}},
    {"type": "LeakedApiKeyDetection", "config": {}},
    {"type": "AddApiKeyHeaderFromEnv", "config": {"api_key_env_var_name": "MY_KEY"}},
    {"type": "SetBackendPolicy", "config": {"backend_url": "https://api.openai.com/v1/"}},
    {"type": "SendBackendRequest", "config": {}},
]
ENTRIES = [
    {"use": "client_api_key_auth", "name": "check"},
    {"use": "leaked_api_key_detection"},
    {"use": "add_api_key_header_from_env", "params": {"api_key_env_var_name": "MY_KEY"}},
    {"use": "set_backend", "params": {"upstream": "openai"}},
    {"use": "send_backend_request"},
]


def flat(policy: dict[str, Any]) -> dict[str, Any]:
    """The form in which Luthien Control writes what it reads in the other."""
    inner = {key: [flat(one) for one in value] if key == "policies" else value for key, value in policy["config"].items()}
    return {"type": policy["type"], "name": inner.pop("name", policy["type"]), **inner}


@pytest.mark.parametrize("series", ["SerialPolicy", "CompoundPolicy"])
@pytest.mark.parametrize("write", [lambda policy: policy, flat], ids=["config form", "flat form"])
def test_a_series_is_the_chain_in_both_forms(series: str, write: Any, tmp_path: Path) -> None:
    found = imported(write({"type": series, "config": {"policies": CONTROL}}))
    assert found.program == "Luthien Control"
    assert found.tree["policies"] == ENTRIES
    assert any("client keys" in note for note in found.notes)
    assert yaml.safe_load(found.text) == found.tree
    assert [entry.name for entry in chain_of(found, tmp_path).request][:2] == ["check", "leaked_api_key_detection"]


def test_a_flat_policy_inside_a_series_keeps_its_parameters() -> None:
    inner = {"type": "ModelNameReplacement", "model_mapping": {"a": "b"}}
    nested = {"type": "SerialPolicy", "policies": [{"type": "SerialPolicy", "config": {"policies": [inner]}}]}
    expected = [{"use": "model_name_replacement", "params": {"model_mapping": {"a": "b"}}}]
    assert imported(nested).tree["policies"] == expected
    config_form = {"type": "ModelNameReplacement", "config": {"model_mapping": {"a": "b"}}}
    assert imported({"type": "SerialPolicy", "config": {"policies": [config_form]}}).tree["policies"] == expected


def equals(left: str, right: Any) -> str:
    """A condition as the text that Luthien Control uses as a key."""
    operands = {"left": {"type": "transaction_path", "path": left}, "right": {"type": "static", "value": right}}
    return json.dumps({"type": "equals", **operands, "comparator": "equals"})


async def test_branching_with_conditions_as_keys(tmp_path: Path) -> None:
    found = imported(
        {
            "name": "BranchingPolicy",
            "type": "BranchingPolicy",
            "default_policy": {"name": "NoopPolicy", "type": "NoopPolicy"},
            "cond_to_policy_map": {
                equals("request.payload.model", "m-1"): {
                    "name": "SetBackendPolicy",
                    "type": "SetBackendPolicy",
                    "backend_url": "http://local:8000/v1",
                }
            },
        }
    )
    assert list(found.tree["upstreams"]) == ["openai", "anthropic", "ollama", "local"]
    assert found.tree["upstreams"]["local"] == {"api": "openai", "base_url": "http://local:8000"}
    chain = chain_of(found, tmp_path)
    services = FakeServices(upstreams={"local": (Dialect.OPENAI, "http://local:8000")})
    context = context_for(services=services)
    await chain.run_request(context, Shadows(lambda verdicts: None))
    assert context.route.upstream == "local"


def test_a_send_at_the_end_of_every_branch_moves_behind_them() -> None:
    send = {"type": "SendBackendRequest"}
    found = imported(
        {
            "type": "BranchingPolicy",
            "cond_to_policy_map": {
                equals("request.payload.model", "a"): send,
                equals("request.payload.model", "b"): {"type": "SerialPolicy", "policies": [{"type": "NoopPolicy"}, send]},
            },
            "default_policy": {"type": "SerialPolicy", "policies": [CONTROL[0], {"type": "LeakedApiKeyDetection"}, send]},
        }
    )
    branching, sender = found.tree["policies"]
    assert sender == {"use": "send_backend_request"}
    assert [branch["then"] for branch in branching["params"]["branches"]] == [{"use": "noop"}, {"use": "noop"}]
    inner = [{"use": "client_api_key_auth", "name": "check"}, {"use": "leaked_api_key_detection"}]
    assert branching["params"]["default"] == {"use": "serial", "params": {"policies": inner}}


def test_a_call_of_its_own_goes_to_a_configured_upstream(tmp_path: Path) -> None:
    spec = {"model": "m", "api_endpoint": "https://other.example/v1", "api_key_env_var": "MY_KEY", "request_args": {"n": 1}}
    found = imported({"type": "BackendCallPolicy", "config": {"backend_call_spec": spec}})
    made = {"backend_call_spec": spec | {"api_endpoint": "other-example"}}
    assert found.tree["policies"] == [{"use": "backend_call", "params": made}]
    assert found.tree["upstreams"]["other-example"]["api_key"] == "${MY_KEY}"
    usual = imported({"type": "BackendCallPolicy"}).tree["policies"][0]["params"]["backend_call_spec"]
    assert (usual["model"], usual["api_endpoint"], usual["api_key_env_var"]) == ("gpt-4o-mini", "openai", "OPENAI_API_KEY")
    assert build_chains(settings_of(found, tmp_path, MY_KEY="sk-1")).default.sender is not None
    branches = {equals("request.payload.model", "a"): {"type": "BackendCallPolicy", "backend_call_spec": spec}}
    both = imported({"type": "BranchingPolicy", "cond_to_policy_map": branches, "default_policy": {"type": "SendBackendRequest"}})
    assert [one["use"] for one in both.tree["policies"]] == ["branching"]
    assert "a branch gets its answer itself, so streams are held back whole" in both.notes


def test_names_in_the_chain_stay_apart() -> None:
    policies = [{"type": "NoopPolicy"}, {"type": "NoopPolicy", "name": "a/b"}, {"type": "NoopPolicy"}]
    names = [one.get("name") for one in imported({"type": "SerialPolicy", "policies": policies}).tree["policies"]]
    assert names == [None, "a-b", "noop-2"]


def test_what_looks_like_a_variable_stays_text(tmp_path: Path) -> None:
    found = imported({"type": "ModelNameReplacement", "model_mapping": {"${HOME}": "x${Y}"}})
    assert settings_of(found, tmp_path).policies[0].params == {"model_mapping": {"${HOME}": "x${Y}"}}


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ({"type": "SerialPolcy"}, "$.type: no policy type is called 'SerialPolcy'; did you mean 'SerialPolicy'?"),
        ({"type": "TokenCounter"}, "$.type: no policy type is called 'TokenCounter'; known are SerialPolicy"),
        ({"type": 3}, "$.type: no policy type is called 3; known are"),
        ({"type": "SerialPolicy"}, "$.policies: missing"),
        (
            {"type": "SerialPolicy", "policies": [{"type": "Noop"}]},
            "$.policies[0].type: no policy type is called 'Noop'; did you",
        ),
        ({"type": "SerialPolicy", "config": {"policies": [3]}}, "$.config.policies[0]: has to be a policy"),
        ({"type": "SerialPolicy", "config": []}, "$.config: has to be an object, not a list"),
        (
            {"type": "ModelNameReplacement", "model_maping": {}},
            "$.model_maping: unknown key; did you mean model_mapping?",
        ),
        (
            {"type": "ModelNameReplacement", "config": {"model_mapping": {}}, "model_mapping": {}},
            "$.model_mapping: stands in config too",
        ),
        ({"type": "SetBackendPolicy"}, "$.backend_url: missing"),
        ({"type": "SetBackendPolicy", "backend_url": "ftp://x"}, "$.backend_url: has to be a URL"),
        ({"type": "SetBackendPolicy", "backend_url": "http://u:p@x/v1"}, "$.backend_url: has to be a URL"),
        ({"type": "BranchingPolicy"}, "$.cond_to_policy_map: missing"),
        (
            {"type": "BranchingPolicy", "cond_to_policy_map": {"{": {"type": "NoopPolicy"}}},
            "$.cond_to_policy_map[0]: the key '{' is no condition as JSON text",
        ),
        (
            {"type": "BranchingPolicy", "cond_to_policy_map": {'{"type": "equal"}': {"type": "NoopPolicy"}}},
            "$.cond_to_policy_map[0] (key).type: 'equal' is unknown; did you mean 'equals'?",
        ),
        (
            {"type": "BranchingPolicy", "cond_to_policy_map": {equals("request.paylod.model", 1): {"type": "NoopPolicy"}}},
            "$.cond_to_policy_map[0] (key).left.path: the path 'request.paylod.model' leads nowhere; did you mean payload?",
        ),
        (
            {
                "type": "BranchingPolicy",
                "cond_to_policy_map": {equals("request.payload.model", 1): {"type": "SendBackendRequest"}},
                "default_policy": {"type": "NoopPolicy"},
            },
            "$: one branch of the BranchingPolicy sends and another does not",
        ),
        (
            {
                "type": "BranchingPolicy",
                "cond_to_policy_map": {equals("request.payload.model", 1): {"type": "SendBackendRequest"}},
            },
            "$: where no condition of the BranchingPolicy held nothing was sent",
        ),
        ({"type": "LeakedApiKeyDetection", "patterns": ["["]}, "it cannot be used here: policies[0].params.patterns"),
        (
            {"type": "SerialPolicy", "policies": [{"type": "SendBackendRequest"}, {"type": "SendBackendRequest"}]},
            "it cannot be used here: policies[1]: only one policy of a chain can send",
        ),
    ],
)
def test_what_cannot_be_taken_over_is_refused_with_its_place(policy: Any, line: str) -> None:
    assert refused(policy)[0].startswith(line), refused(policy)


def test_every_fault_is_told_at_once() -> None:
    lines = refused(
        {"type": "SerialPolicy", "policies": [{"type": "A"}, {"type": "NoopPolicy", "x": 1}, {"type": "SetBackendPolicy"}]}
    )
    assert [line.partition(":")[0] for line in lines] == ["$.policies[0].type", "$.policies[1].x", "$.policies[2].backend_url"]


# -- Policy Mesh ------------------------------------------------------------------------------------------------------


def mesh(keywords: list[str], default: str = "public", **cost: Any) -> dict[str, Any]:
    return {
        "sensitivity": {"keywords": keywords},
        "cost": {"max_prompt_length_for_local": 0, **cost},
        "default_provider": default,
    }


@pytest.mark.parametrize(
    ("rules", "prompt", "upstream", "reason"),
    [
        (mesh(["internal", "confidential"]), "This is internal data.", "ollama", Reason.SENSITIVE_KEYWORD_MATCH),
        (mesh(["secret"]), "TOP SECRET report", "ollama", Reason.SENSITIVE_KEYWORD_MATCH),
        (mesh([" Secret ", ""]), "secret", "ollama", Reason.SENSITIVE_KEYWORD_MATCH),
        (mesh([], max_prompt_length_for_local=500), "x" * 100, "ollama", Reason.COST_PREFER_LOCAL),
        (mesh([], max_prompt_length_for_local=50), "x" * 100, "openai", Reason.DEFAULT),
        (mesh([], max_prompt_length_for_local=50), "x" * 50, "ollama", Reason.COST_PREFER_LOCAL),
        (mesh([], max_prompt_length_for_local=2), "🙂🙂", "ollama", Reason.COST_PREFER_LOCAL),
        (mesh([], "local", max_prompt_length_for_local=50), "x" * 100, "ollama", Reason.DEFAULT),
        (mesh([], "openai", max_prompt_length_for_local=50), "x" * 100, "ollama", Reason.DEFAULT),
        (mesh([], max_usd_for_local=0.05, input_usd_per_1m_tokens=20), "x" * 4_000, "ollama", Reason.COST_PREFER_LOCAL),
        (mesh([], max_usd_for_local=0.05, input_usd_per_1m_tokens=20), "x" * 10_000, "ollama", Reason.COST_PREFER_LOCAL),
        (mesh([], max_usd_for_local=0.05, input_usd_per_1m_tokens=20), "x" * 10_001, "openai", Reason.DEFAULT),
        (mesh([], max_usd_for_local=0.05, input_usd_per_1k_tokens=0.02), "x" * 10_001, "openai", Reason.DEFAULT),
        (mesh([], max_usd_for_local=0, input_usd_per_1m_tokens=1), "x", "openai", Reason.DEFAULT),
        (mesh([], max_usd_for_local=0, input_usd_per_1m_tokens=1), "", "ollama", Reason.COST_PREFER_LOCAL),
        (
            mesh(["internal"], max_usd_for_local=1, input_usd_per_1m_tokens=1),
            "internal",
            "ollama",
            Reason.SENSITIVE_KEYWORD_MATCH,
        ),
    ],
)
def test_prompts_go_where_policy_mesh_sent_them(rules: Any, prompt: str, upstream: str, reason: str, tmp_path: Path) -> None:
    settings = settings_of(imported(rules), tmp_path)
    first = chosen(settings, prompt)
    assert first == chosen(settings, prompt)
    assert (first.upstream.name, first.reason) == (upstream, reason)


def chosen(settings: Settings, prompt: str, endpoint: Endpoint | None = None) -> Choice:
    return chosen_for(settings, {"messages": [{"role": "user", "content": prompt}], "input": prompt}, endpoint)


def chosen_for(settings: Settings, body: dict[str, Any], endpoint: Endpoint | None = None) -> Choice:
    chat = Endpoint(Dialect.OPENAI, Operation.CHAT, "/v1/chat/completions", Dialect.OPENAI)
    payload = json.dumps({"model": "m", **body}).encode()
    return Router(settings, Upstreams(settings)).choose(endpoint or chat, headers=[], body=payload, model="m")


def test_only_the_last_message_of_a_user_counts(tmp_path: Path) -> None:
    settings = settings_of(imported(mesh(["internal"])), tmp_path)
    messages = [
        {"role": "user", "content": "internal"},
        {"role": "assistant", "content": "internal"},
        {"role": "user", "content": "hi"},
    ]
    assert chosen_for(settings, {"messages": messages}).upstream.name == "openai"


def test_a_keyword_counts_within_words_and_is_no_variable(tmp_path: Path) -> None:
    settings = settings_of(imported(mesh(["class", "${HOME}"])), tmp_path)
    assert chosen(settings, "it is classified").reason == Reason.SENSITIVE_KEYWORD_MATCH
    assert chosen(settings, "echo ${home}").reason == Reason.SENSITIVE_KEYWORD_MATCH


def test_keys_that_policy_mesh_does_not_know_are_left_out_with_a_note() -> None:
    """It ignores them in silence; what looks like a misspelling is refused all the same."""
    found = imported(mesh(["secret"]) | {"owner": "ann"})
    assert any("$.owner" in note for note in found.notes)
    assert found.tree == imported(mesh(["secret"])).tree


def test_embeddings_do_not_change_their_model_for_cost(tmp_path: Path) -> None:
    settings = settings_of(imported(mesh([], max_prompt_length_for_local=500)), tmp_path)
    embeddings = Endpoint(Dialect.OPENAI, Operation.EMBEDDINGS, "/v1/embeddings", Dialect.OPENAI)
    assert chosen(settings, "x", embeddings).upstream.name == "openai"


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ({"sensitivity": {"keywords": []}}, "$.cost: missing"),
        ({"cost": {}, "default_provider": "local"}, "$.sensitivity: missing"),
        (mesh([3]), "$.sensitivity.keywords[0]: has to be a text"),  # type: ignore[list-item]
        (mesh([], max_prompt_length_for_local=-1), "$.cost.max_prompt_length_for_local: has to be a whole number from 0"),
        (mesh([], max_prompt_length_for_local=True), "$.cost.max_prompt_length_for_local: has to be a whole number from 0"),
        (mesh([], input_usd_per_1m_tokens=0), "$.cost.input_usd_per_1m_tokens: has to be a number above 0"),
        (mesh([], chars_per_token=0.5), "$.cost.chars_per_token: has to be a number from 1"),
        (mesh([]) | {"default": 1}, "$.default: unknown key; did you mean default_provider?"),
        (mesh([], max_usd=1), "$.cost.max_usd: unknown key; did you mean max_usd_for_local?"),
    ],
)
def test_wrong_rules_are_refused_with_their_place(rules: Any, line: str) -> None:
    assert refused(rules)[0].startswith(line), refused(rules)


# -- Luthien Proxy ----------------------------------------------------------------------------------------------------

SUCCESSOR = """
policy:
  class: "luthien_proxy.policies.multi_serial_policy:MultiSerialPolicy"
  config:
    policies:
      - class: "luthien_proxy.policies.string_replacement_policy:StringReplacementPolicy"
        config: {replacements: [["foo", "bar"]], match_capitalization: false, apply_to: both}
      - class: "luthien_proxy.policies.tool_call_judge_policy:ToolCallJudgePolicy"
        config:
          config:
            model: claude-haiku-4-5
            api_base: https://judge.example/v1
            probability_threshold: 0.7
            blocked_message_template: "Tool '{tool_name}' blocked ({probability:.2f}): {explanation}"
            inference_provider: {provider: mine}
      - class: "luthien_proxy.policies.dogfood_safety_policy:DogfoodSafetyPolicy"
        config: {blocked_patterns: ["docker\\\\s+rm"], tool_names: [Bash]}
      - class: "luthien_proxy.policies.presets.block_dangerous_commands:BlockDangerousCommandsPolicy"
"""


def test_a_policy_file_of_luthien_proxy(tmp_path: Path) -> None:
    found = imported(SUCCESSOR)
    assert found.program == "Luthien Proxy"
    replacing, judge, patterns, commands = found.tree["policies"]
    assert replacing["params"] == {"replacements": [["foo", "bar"]], "match_capitalization": False, "apply_to": "both"}
    assert judge["params"]["upstream"] == "judge-example"
    assert judge["params"]["threshold"] == 0.7
    assert judge["params"]["blocked_message_template"] == "Tool '{tool_name}' blocked ({probability}): {explanation}"
    assert patterns["params"]["rules"] == [{"tool": "Bash", "arguments": {"command": "(?i-s:docker\\s+rm)"}}]
    assert commands == {"use": "block_dangerous_commands"}
    assert any("upstreams.judge-example.api_key" in note for note in found.notes)
    assert len(chain_of(found, tmp_path).response) == 4


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ({"class": "a:AllCapsPolicy"}, "$.policy.class: AllCapsPolicy has no counterpart here"),
        ({"class": "os:system"}, "$.policy.class: no policy class is called 'system'; known are NoOpPolicy"),
        (
            {"class": "a:StringReplacmentPolicy"},
            "$.policy.class: no policy class is called 'StringReplacmentPolicy'; did you mean StringRep",
        ),
        (
            {"class": "a:StringReplacementPolicy", "config": {"replacement": []}},
            "$.policy.config.replacement: unknown key; did you mean replacements?",
        ),
        (
            {"class": "a:StringReplacementPolicy", "config": {"replacements": [["a"]]}},
            "it cannot be used here: policies[0].params.replacements[0][1]",
        ),
        ({"class": "a:DogfoodSafetyPolicy"}, "$.policy.config.blocked_patterns: its own patterns protect Luthien Proxy itself"),
        (
            {"class": "a:ToolCallJudgePolicy", "config": {"on_error": "pass"}},
            "$.policy.config.on_error: a judge that fails passes nothing here",
        ),
        ({}, "$.policy.class: missing"),
        ([], "$.policy: has to be an object, not a list"),
    ],
)
def test_what_luthien_proxy_alone_has_is_refused(policy: Any, line: str) -> None:
    assert refused({"policy": policy})[0].startswith(line), refused({"policy": policy})


# -- Cylestio Perimeter -----------------------------------------------------------------------------------------------

PERIMETER = """
server: {port: 4100, host: 127.0.0.1, workers: 4}
llm: {base_url: "https://api.anthropic.com/", type: Anthropic, api_key: "${ANTHROPIC_API_KEY}", timeout: 45, max_retries: 3}
session: {enabled: true, max_sessions: 5000, session_ttl_seconds: 600}
interceptors:
  - {type: printer, enabled: true, config: {log_requests: true}}
  - {type: rate_limit, enabled: false}
  - {type: live_trace, enabled: false, config: {server_port: 7100}}
live_trace: {session_completion_timeout: 45}
logging: {level: CRITICAL, format: json, file: "${LOG_FOLDER}", backup_count: 2}
"""


def test_a_configuration_of_cylestio(tmp_path: Path) -> None:
    found = imported(PERIMETER)
    settings = settings_of(found, tmp_path, ANTHROPIC_API_KEY="sk-1", LOG_FOLDER="/var/log/x")
    upstream = settings.upstreams["anthropic"]
    assert list(settings.upstreams) == ["anthropic"]
    assert (upstream.base_url, upstream.api_key and upstream.api_key.get_secret_value()) == ("https://api.anthropic.com", "sk-1")
    assert upstream.timeouts is not None
    assert (upstream.timeouts.first_byte_s, upstream.timeouts.idle_s) == (45, 45)
    assert (settings.server.port, settings.sessions.max_sessions, settings.sessions.ttl_s) == (4100, 5000, 600)
    said = settings.logging
    assert (said.level, said.format, said.file, said.backup_count) == ("ERROR", "json", "/var/log/x", 2)
    assert (settings.routing.retries.max_attempts, settings.routing.retries.same_upstream) == (4, True)
    assert [(one.type, one.enabled, one.config) for one in settings.interceptors] == [
        ("printer", True, {"log_requests": True}),
        ("live_trace", False, {"session_completion_timeout": 45, "server_port": 7100}),
    ]
    assert "the interceptor rate_limit was switched off and is left out" in found.notes
    assert "server.workers is left out: it was never used there" in found.notes


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"interceptors": [{"type": "rate_limit"}]},
            "$.interceptors[0].type: the interceptor 'rate_limit' has no counterpart here",
        ),
        (
            {"interceptors": [{"type": "cylestio_trace"}]},
            "it cannot be used here: interceptors[0].config.url: missing; give it a value",
        ),
        (
            {"interceptors": [{"type": "printr"}]},
            "$.interceptors[0].type: no interceptor is called 'printr'; did you mean 'printer'?",
        ),
        ({"interceptors": [{}]}, "$.interceptors[0].type: missing"),
        ({"llm": {"base_url": "https://x", "type": "gemini"}}, "$.llm.type: 'gemini' is no API that luthien speaks"),
        ({"llm": {"type": "openai"}}, "$.llm.base_url: missing"),
        ({"llm": {"base_url": "https://x", "type": "openai", "key": "k"}}, "$.llm.key: unknown key; did you mean api_key?"),
        ({"servr": {}}, "$.servr: unknown key; did you mean server?"),
        ({"cylestio": {"enabled": True}}, "$.cylestio: luthien sends nothing to cylestio.com"),
        ({"server": {"port": "${PORT}"}}, "$.server.port: a variable cannot be checked here"),
        ({"server": {"port": 99999}}, "it cannot be used here: server.port"),
    ],
)
def test_what_cylestio_alone_has_is_refused(change: dict[str, Any], line: str) -> None:
    value = yaml.safe_load(PERIMETER) | change
    assert refused(value)[0].startswith(line), refused(value)


# -- any file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has to hold an object at the top"),
        ("[]", "has to hold an object at the top"),
        ("{", "the file:1: not JSON: expecting property name"),
        ("a: b: c", "the file:1: not YAML: mapping values are not allowed here"),
        ("{}", "is of no program that luthien knows"),
        ("policies: []", "looks like luthien's own configuration"),
        ('{"type": "NoopPolicy", "type": "SerialPolicy"}', "the key 'type' stands twice in one object"),
        ('{"type": "ModelNameReplacement", "model_mapping": {"a": NaN}}', "nan is no JSON value"),
        ("policy: {class: a:NoOpPolicy, config: {x: 2024-01-01}}", "is no JSON value; write it as text"),
        ("policy: {class: a:NoOpPolicy, config: {1: 2}}", "every key has to be text"),
        ("policy: !!python/object/apply:os.system [echo]", "could not determine a constructor"),
        ('{"type": ' * 100_000, "nested too deeply"),
        ('{"type": "SerialPolicy", "policies": [' + '{"type":"SerialPolicy","policies":[' * 200 + "]}" * 200 + "]}", ""),
        (
            "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
            "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n",
            "aliases may repeat",
        ),
    ],
)
def test_hostile_files_are_refused_in_a_line(text: str, said: str) -> None:
    if not said:
        assert imported(text).tree["policies"] == []
        return
    with pytest.raises(ConfigurationError) as caught:
        imported(text)
    assert said in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        import_file(tmp_path / "absent.json", {})
    file = tmp_path / "file.json"
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        import_file(file, {})
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"type": "NoopPolicy"}).encode())
    assert import_file(file, {}).tree["policies"] == [{"use": "noop"}]
    file.write_bytes(b" " * (10 * 1024 * 1024 + 1))
    with pytest.raises(ConfigurationError, match="larger than 10 MiB"):
        import_file(file, {})
