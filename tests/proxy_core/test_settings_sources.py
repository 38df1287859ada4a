"""Settings: four sources, one tree, the origin of each value, and faults that name their place."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.errors import ConfigurationError, StoreError
from proxy_core.settings import Settings
from proxy_core.settings_sources import LoadedSettings, data_dir, known_places, load, shown


def written(folder: Path, text: str) -> Path:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def loaded(folder: Path, text: str | None = None, environ: dict[str, str] | None = None, **overrides: object) -> LoadedSettings:
    config = None if text is None else written(folder, text)
    return load(config, {name.replace("__", "."): value for name, value in overrides.items()}, environ or {}, folder / ".env")


def faults(folder: Path, text: str | None = None, environ: dict[str, str] | None = None, **overrides: object) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text, environ, **overrides)
    return str(caught.value).splitlines()


def test_nothing_configured_means_the_three_providers(tmp_path: Path) -> None:
    result = loaded(tmp_path)
    assert {name: upstream.base_url for name, upstream in result.settings.upstreams.items()} == {
        "openai": "https://api.openai.com",
        "anthropic": "https://api.anthropic.com",
        "ollama": "http://localhost:11434",
    }
    assert set(result.origins.values()) == {"default"}
    assert result.warnings == ()


def test_each_source_beats_the_one_before_and_is_named(tmp_path: Path) -> None:
    text = "server:\n  port: 1001\n  host: 127.0.0.2\n  drain_s: 3\n"
    environ = {"LUTHIEN_SERVER__PORT": "1002", "LUTHIEN_SERVER__HOST": "127.0.0.3"}
    result = loaded(tmp_path, text, environ, server__port=1003)
    server = result.settings.server
    assert (server.port, server.host, server.drain_s) == (1003, "127.0.0.3", 3)
    assert result.origins["server.port"] == "command line --port"
    assert result.origins["server.host"] == "environment LUTHIEN_SERVER__HOST"
    assert result.origins["server.drain_s"] == "file config.yaml:4"
    assert result.origins["server.keep_alive_s"] == "default"


def test_dotenv_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# mine\nexport LUTHIEN_SERVER__PORT='1005'\nLOG_LEVEL=debug\n")
    result = loaded(tmp_path, environ={"LOG_LEVEL": "warn"})
    assert result.settings.server.port == 1005
    assert result.settings.logging.level == "WARNING"
    assert result.origins["server.port"] == "environment LUTHIEN_SERVER__PORT (.env:2)"
    assert result.origins["logging.level"] == "environment LOG_LEVEL"


def test_every_fault_is_a_line_with_place_and_remedy(tmp_path: Path) -> None:
    text = "server:\n  prot: 1\n  port: 70000\nui:\n  on_close: maybe\nqqqqqq: 1\n"
    assert faults(tmp_path, text) == [
        "unknown setting server.prot (file config.yaml:2); did you mean port?",
        "server.port (file config.yaml:3): input should be less than or equal to 65535, not 70000",
        "ui.on_close (file config.yaml:5): input should be 'stop' or 'headless', not 'maybe'",
        f"unknown setting qqqqqq (file config.yaml:6); known here: {', '.join(sorted(Settings.model_fields))}",
    ]


@pytest.mark.parametrize(
    "url", ["http://x y", "http://x/a b", "http://x:99999", "http://x:0", "http://x:y", "http://", "http://x\\n"]
)
def test_an_address_that_nothing_can_be_reached_at_is_refused(tmp_path: Path, url: str) -> None:
    (line,) = faults(tmp_path, f'upstreams: {{openai: {{base_url: "{url}"}}}}\n')
    assert line.endswith("is not a URL like https://api.openai.com")


def test_a_truth_is_no_number(tmp_path: Path) -> None:
    text = "server: {port: true}\nrouting: {timeouts: {idle_s: false}, cost: {max_usd_for_local: yes}}\nui: {mouse: off}\n"
    assert faults(tmp_path, text) == [
        "server.port (file config.yaml:1): give a number, not True",
        "routing.timeouts.idle_s (file config.yaml:2): give a number, not False",
        "routing.cost.max_usd_for_local (file config.yaml:2): give a number, not True",
    ]


def test_a_setting_in_the_wrong_section_is_found(tmp_path: Path) -> None:
    assert faults(tmp_path, "database_url: x\n") == [
        "unknown setting database_url (file config.yaml:1); did you mean journal.database_url?"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1\nb: 2", "config.yaml:2: "),
        ("a: b: c", "config.yaml:1: "),
        ("\tserver: 1", "config.yaml:1: "),
        ("- 1\n- 2\n", "the file has to be a mapping"),
        ("server: {port: 1}\nserver: {port: 2}\n", "server is set twice (file config.yaml:1 and file config.yaml:2); keep one"),
        ("a: &a [*a]", "config.yaml"),
        ("x: &x\n  <<: *x\n  a: 1", "config.yaml"),
        ("!!python/object/apply:os.system ['true']", "config.yaml"),
        ("a\x00b: 1", "config.yaml"),
        ("[" * 3_000, "config.yaml"),
    ],
)
def test_a_file_that_is_not_settings_is_refused_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in "\n".join(faults(tmp_path, text))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*absent\.yaml: No such file or directory; check --config"):
        load(tmp_path / "absent.yaml", {}, {}, None)
    (tmp_path / "latin.yaml").write_bytes(b"server: {host: \xff}")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load(tmp_path / "latin.yaml", {}, {}, None)


def test_references_to_the_environment(tmp_path: Path) -> None:
    text = (
        "# ${NOT_LOOKED_AT}\n"
        "upstreams:\n"
        "  openai: {api: openai, base_url: 'https://${HOST_NAME}/x', api_key: ${KEY}}\n"
        "  local: {api: ollama, base_url: '${OLLAMA:-http://localhost:11434}'}\n"
        "server:\n  port: ${PORT}\n  host: $${literal}\n"
    )
    result = loaded(tmp_path, text, {"HOST_NAME": "a.example", "KEY": "k: [}#", "PORT": "4100"})
    openai = result.settings.upstreams["openai"]
    assert openai.base_url == "https://a.example/x"
    assert openai.api_key is not None
    assert openai.api_key.get_secret_value() == "k: [}#"
    assert result.settings.upstreams["local"].base_url == "http://localhost:11434"
    assert result.settings.server.port == 4100
    assert result.settings.server.host == "${literal}"


def test_an_unset_reference_names_its_line(tmp_path: Path) -> None:
    assert faults(tmp_path, "server:\n  host: ${NOPE}\n") == [
        "server.host (file config.yaml:2): the environment variable NOPE is not set; export it or write ${NOPE:-default}"
    ]
    assert "no reference to a variable" in faults(tmp_path, "server:\n  host: ${a b}\n")[0]


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        (
            {"LUTHIEN_SERVER__PROT": "1"},
            "unknown setting server.prot (environment LUTHIEN_SERVER__PROT); did you mean LUTHIEN_SERVER__PORT?",
        ),
        ({"LUTHIEN_SERVER": "1"}, "give a JSON object"),
        ({"LUTHIEN_SERVER__PORT": "x"}, "server.port (environment LUTHIEN_SERVER__PORT)"),
        ({"LOG_LEVEL": "loud"}, "logging.level (environment LOG_LEVEL)"),
        ({"LLM_BASE_URL": "http://x", "LLM_TYPE": "gemini"}, "'GEMINI' is no API".replace("GEMINI", "gemini")),
    ],
)
def test_faults_of_the_environment_name_the_variable(tmp_path: Path, environ: dict[str, str], line: str) -> None:
    assert any(line in fault for fault in faults(tmp_path, None, environ))


def test_a_foreign_name_with_the_prefix_is_only_mentioned(tmp_path: Path) -> None:
    assert loaded(tmp_path, environ={"LUTHIEN_KEYRING": "x"}).warnings == ("LUTHIEN_KEYRING is no setting and is ignored",)


def test_short_names_of_the_environment(tmp_path: Path) -> None:
    environ = {"LUTHIEN_PORT": "4100", "LUTHIEN_HOST": "::1", "LUTHIEN_LOG_LEVEL": "warning"}
    result = loaded(tmp_path, environ=environ)
    assert (result.settings.server.port, result.settings.server.host) == (4100, "::1")
    assert result.settings.logging.level == "WARNING"
    assert result.origins["server.port"] == "environment LUTHIEN_PORT"


def test_nested_and_json_values_from_the_environment(tmp_path: Path) -> None:
    environ = {
        "LUTHIEN_UPSTREAMS__OPENAI__TIMEOUTS__IDLE_S": "7",
        "LUTHIEN_ROUTING__TIMEOUTS": json.dumps({"connect_s": 2}),
        "PROVIDER_TIMEOUT_SECONDS": "33",
        "LUTHIEN_DATA_DIR": "/somewhere",
    }
    settings = loaded(tmp_path, environ=environ).settings
    timeouts = settings.upstreams["openai"].timeouts
    assert timeouts is not None
    assert timeouts.idle_s == 7
    assert settings.routing.timeouts.connect_s == 2
    assert settings.routing.timeouts.total_s == 33
    assert settings.data_dir == "/somewhere"


def test_one_upstream_from_the_command_line_or_the_environment(tmp_path: Path) -> None:
    result = loaded(tmp_path, base_url="http://models.example:9/v1", type="openai", api_key="sk-cli")
    assert list(result.settings.upstreams) == ["openai"]
    assert result.settings.upstreams["openai"].base_url == "http://models.example:9"
    assert result.origins["upstreams.openai.base_url"] == "command line --base-url"
    assert list(loaded(tmp_path, environ={"LLM_BASE_URL": "http://m.example", "LLM_TYPE": "anthropic"}).settings.upstreams) == [
        "anthropic"
    ]
    assert faults(tmp_path, base_url="http://x") == [
        "--base-url needs --type openai, anthropic or ollama: the API that the upstream speaks"
    ]


def test_options_of_an_upstream_lie_over_the_only_one_that_is_configured(tmp_path: Path) -> None:
    text = "llm: {type: openai, base_url: http://models.example, api_key: sk-file, timeout: 7}\n"
    for options in ({"api_key": "sk-cli"}, {"api_key": "sk-cli", "type": "OpenAI"}):
        result = loaded(tmp_path, text, **options)
        upstream = result.settings.upstreams["openai"]
        assert (upstream.base_url, upstream.timeouts and upstream.timeouts.idle_s) == ("http://models.example", 7)
        assert upstream.api_key is not None
        assert upstream.api_key.get_secret_value() == "sk-cli"
        assert result.origins["upstreams.openai.api_key"] == "command line --api-key"
    moved = loaded(tmp_path, text, base_url="http://other.example").settings.upstreams["openai"]
    assert (moved.base_url, moved.api_key and moved.api_key.get_secret_value()) == ("http://other.example", "sk-file")
    other = loaded(tmp_path, text, type="anthropic").settings.upstreams
    assert [(name, one.base_url, one.api_key) for name, one in other.items()] == [
        ("anthropic", "https://api.anthropic.com", None)
    ]
    two = "upstreams: {openai: {}, anthropic: {}}\n"
    assert faults(tmp_path, two, api_key="sk-cli")[0].startswith("--api-key needs --type")


@pytest.mark.parametrize("address", ["http://127.0.0.1:4000/v1", "http://localhost:4000", "http://127.0.0.9:4000/openai/v1"])
def test_an_upstream_that_is_luthien_itself(tmp_path: Path, address: str) -> None:
    result = loaded(tmp_path, environ={"OPENAI_BASE_URL": address, "OPENAI_API_KEY": "sk-1"})
    assert result.settings.upstreams["openai"].base_url == "https://api.openai.com"
    assert "points at luthien itself" in result.warnings[0]
    assert "luthien's own address" in faults(tmp_path, base_url=address, type="openai")[0]
    line = f"upstreams.mine.base_url (file config.yaml:2): {address.removesuffix('/v1')} is luthien's own address; "
    text = f"upstreams:\n  mine: {{api: openai, base_url: '{address}'}}"
    assert faults(tmp_path, text)[0].startswith(line)


def test_an_upstream_on_another_port_of_this_machine_is_none_of_that(tmp_path: Path) -> None:
    result = loaded(tmp_path, environ={"OPENAI_BASE_URL": "http://127.0.0.1:4000/v1"}, server__port=4001)
    assert result.settings.upstreams["openai"].base_url == "http://127.0.0.1:4000"
    assert result.warnings == ()


def test_a_providers_key_never_goes_to_an_address_of_the_file(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": "sk-shared"}
    elsewhere = loaded(tmp_path, "upstreams: {openai: {base_url: 'http://models.example'}}", environ)
    assert elsewhere.settings.upstreams["openai"].api_key is None
    usual = loaded(tmp_path, "upstreams: {openai: {base_url: 'https://api.openai.com/v1'}}", environ).settings.upstreams["openai"]
    assert usual.api_key is not None
    own = loaded(tmp_path, "upstreams: {openai: {api_key: sk-own}}", environ).settings.upstreams["openai"]
    assert own.api_key is not None
    assert own.api_key.get_secret_value() == "sk-own"


@pytest.mark.parametrize(
    ("given_url", "used"),
    [
        ("postgres://u:p@h/d?sslmode=require", "postgresql+asyncpg://u:p@h/d?ssl=require"),
        ("postgresql://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql+psycopg2://h/d", "postgresql+asyncpg://h/d"),
        ("sqlite:////tmp/x.db", "sqlite+aiosqlite:////tmp/x.db"),
    ],
)
def test_database_urls_of_other_programs_are_understood(tmp_path: Path, given_url: str, used: str) -> None:
    assert loaded(tmp_path, environ={"DATABASE_URL": given_url}).settings.journal.database_url == used


def test_secrets_are_in_no_message(tmp_path: Path) -> None:
    text = "journal: {database_url: 'mysql://u:hunter2@h/d'}\nupstreams: {a: {api: openai, base_url: x, api_key: [hunter2]}}\n"
    assert "hunter2" not in "\n".join(faults(tmp_path, text))
    settings = loaded(tmp_path, environ={"DATABASE_URL": "postgres://u:hunter2@h/d", "OPENAI_API_KEY": "hunter2"}).settings
    assert "hunter2" not in json.dumps(shown(settings))
    assert shown(settings)["upstreams"]["openai"]["api_key"] == "(set, hidden)"


def test_origins_cover_every_setting(tmp_path: Path) -> None:
    origins = loaded(tmp_path).origins
    for place in known_places():
        if "*" not in place:
            assert ".".join(place) in origins


KEYS = ["server", "port", "workers", "upstreams", "openai", "api", "routing", "policy_file", "interceptors", "config", "logging"]
KEYS += ["llm", "type", "base_url", "timeout", "max_retries", "session", "max_sessions", "enabled", "live_trace"]
KEYS += ["session_completion_timeout"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.sampled_from(KEYS), inner, max_size=3)
        ),
    )
)
def test_no_file_makes_it_raise_anything_else(tmp_path_factory: pytest.TempPathFactory, tree: object) -> None:
    config = written(tmp_path_factory.getbasetemp(), json.dumps(tree))
    try:
        load(config, {}, {}, None)
    except ConfigurationError as fault:
        assert str(fault)


def test_the_data_folder_is_private_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    fresh = tmp_path / "a" / "b"
    settings = loaded(tmp_path, data_dir=str(fresh)).settings
    assert data_dir(settings) == fresh
    assert fresh.stat().st_mode & 0o777 == 0o700
    old = tmp_path / "old"
    old.mkdir(mode=0o755)
    old.chmod(0o755)
    data_dir(loaded(tmp_path, data_dir=str(old)).settings)
    assert old.stat().st_mode & 0o777 == 0o755


def test_a_data_folder_that_cannot_be_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write to the data folder .*; choose another folder with --data-dir"):
        data_dir(loaded(tmp_path, data_dir=str(tmp_path / "file" / "x")).settings)


def test_yaml_is_imported_only_for_a_file() -> None:
    program = (
        "import sys; from proxy_core.settings_sources import load; load(None, {}, {}, None);"
        "assert 'yaml' not in sys.modules and 'dotenv' not in sys.modules, 'too much'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_faults_inside_lists_name_the_entry_and_its_line(tmp_path: Path) -> None:
    text = "policies:\n  - use: noop\n  - use: serial\n    mod: shadow\n  - mode: loud\n"
    assert faults(tmp_path, text) == [
        "unknown setting policies[1].mod (file config.yaml:4); did you mean mode?",
        "policies[2].use is missing (file config.yaml:5); give it a value",
        "policies[2].mode (file config.yaml:5): input should be 'enforce', 'shadow' or 'off', not 'loud'",
    ]


def test_a_bare_off_is_a_mode_and_an_empty_section_means_its_defaults(tmp_path: Path) -> None:
    text = "policies: [{use: noop, mode: off}]\nrouting:\n  cost:\n  default_provider: local\nupstreams: {openai: {timeouts: }}\n"
    settings = loaded(tmp_path, text).settings
    assert settings.policies[0].mode == "off"
    assert (settings.routing.cost.chars_per_token, settings.routing.default_provider) == (4, "local")
    assert settings.upstreams["openai"].timeouts is None
    assert faults(tmp_path, "upstreams:\n  openai:\n")[0].startswith("upstreams.openai (file config.yaml:2): give a mapping of ")


def test_a_list_can_come_from_the_environment_as_json(tmp_path: Path) -> None:
    found = loaded(tmp_path, environ={"LUTHIEN_POLICIES": '[{"use": "noop"}]'})
    assert [policy.use for policy in found.settings.policies] == ["noop"]
    for name, value in {"LUTHIEN_POLICIES": "noop", "LUTHIEN_POLICIES__0__USE": "noop"}.items():
        with pytest.raises(ConfigurationError, match="give a JSON list as LUTHIEN_POLICIES"):
            loaded(tmp_path, environ={name: value})


def test_policies_of_ones_own_come_from_the_folder_beside_the_file_and_the_data_folder(tmp_path: Path) -> None:
    assert loaded(tmp_path, data_dir=str(tmp_path / "data")).settings.policy_paths == []
    (tmp_path / "policies").mkdir()
    (tmp_path / "data" / "policies").mkdir(parents=True)
    config = tmp_path / "config.yaml"
    config.write_text(f"data_dir: {tmp_path / 'data'}")
    usual = load(config, {}, {}, None)
    assert usual.settings.policy_paths == [str(tmp_path / "policies"), str(tmp_path / "data" / "policies")]
    config.write_text("policy_paths: [mine, /elsewhere/one.py]")
    assert load(config, {}, {}, None).settings.policy_paths == [str(tmp_path / "mine"), "/elsewhere/one.py"]


def test_nothing_but_the_file_can_name_code_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"policy_paths .*only the configuration file may set it"):
        loaded(tmp_path, environ={"LUTHIEN_POLICY_PATHS": str(tmp_path)})
    (tmp_path / "policies").mkdir()
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"LUTHIEN_DATA_DIR={tmp_path}")
    assert load(None, {}, {}, dotenv).settings.policy_paths == []


def test_names_of_policy_mesh(tmp_path: Path) -> None:
    environ = {"LOCAL_LLM_URL": "http://near.example:1", "LOCAL_LLM_API_KEY": "k1", "PUBLIC_LLM_API_KEY": "k2"}
    environ |= {"AUDIT_ENABLED": "no", "PROVIDER_TIMEOUT_SECONDS": "9"}
    settings = loaded(tmp_path, environ=environ).settings
    near, public = settings.upstreams["ollama"], settings.upstreams["openai"]
    assert near.base_url == "http://near.example:1"
    assert (near.api_key and near.api_key.get_secret_value(), public.api_key and public.api_key.get_secret_value()) == (
        "k1",
        "k2",
    )
    assert public.base_url == "https://api.openai.com"
    assert settings.upstreams["anthropic"].api_key is None
    assert (settings.server.audit, settings.routing.timeouts.total_s) == (False, 9)
    assert loaded(tmp_path).settings.server.audit


def test_a_public_provider_that_is_anthropic_is_what_public_means(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('{"sensitivity": {"keywords": ["Secret"]}, "cost": {"max_usd_for_local": 1}, "default_provider": "public"}')
    environ = {"POLICY_FILE": str(rules), "PUBLIC_LLM_URL": "https://anthropic.example", "PUBLIC_LLM_API_KEY": "k"}
    result = loaded(tmp_path, environ=environ)
    settings = result.settings
    assert settings.upstreams["anthropic"].base_url == "https://anthropic.example"
    assert settings.upstreams["anthropic"].api_key is not None
    assert (settings.routing.default_provider, result.origins["routing.default_provider"]) == (
        "anthropic",
        "environment PUBLIC_LLM_URL",
    )
    assert loaded(tmp_path, environ={"POLICY_FILE": str(rules)}).settings.routing.default_provider == "public"


RULES = """{
  "sensitivity": {"keywords": ["Internal", " ${X} "]},
  "cost": {"max_prompt_length_for_local": 7},
  "comment": "mine"
}"""


def test_a_file_of_rules_lies_over_the_file_and_under_the_environment(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text(RULES)
    text = "routing:\n  sensitivity: {keywords: [a], match: word}\n  default_provider: openai\n"
    environ = {"POLICY_FILE": str(tmp_path / "rules.json"), "LUTHIEN_ROUTING__SENSITIVITY__MATCH": "word"}
    result = loaded(tmp_path, text, environ)
    routing = result.settings.routing
    assert (routing.sensitivity.keywords, routing.sensitivity.match) == (["internal", "${x}"], "word")
    assert (routing.sensitivity.scope, routing.default_provider) == ("last_user", "local")
    assert result.origins["routing.cost.max_prompt_length_for_local"] == "file rules.json:3"
    assert result.warnings == ("rules.json:4: comment is no key of such a file and is ignored",)
    over = loaded(tmp_path, text, environ | {"COST_MAX_PROMPT_LENGTH_FOR_LOCAL": "8"}).settings.routing
    assert over.cost.max_prompt_length_for_local == 8
    in_file = loaded(tmp_path, "routing: {policy_file: rules.json}\n")
    assert in_file.settings.routing.sensitivity.keywords == ["internal", "${x}"]
    assert in_file.settings.routing.policy_file == str(tmp_path / "rules.json")


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        (None, "routing.policy_file (environment POLICY_FILE): cannot read "),
        ("{", "rules.json:1: not JSON: expecting property name"),
        ("[]", "rules.json:1: it has to hold an object"),
        (
            '{"sensitivity": {},\n"cost": {}}',
            "rules.json:1: $.sensitivity.keywords: missing; it has to be a list of texts",
        ),
        (
            '{"sensitivity": {"keywords": []},\n"cost": {"chars_per_tokn": 3}}',
            "rules.json:2: $.cost.chars_per_tokn: unknown key; did you mean chars_per_token?",
        ),
    ],
)
def test_faults_of_a_file_of_rules_have_their_line(tmp_path: Path, rules: str | None, line: str) -> None:
    file = tmp_path / "rules.json"
    if rules is not None:
        file.write_text(rules)
    (fault,) = faults(tmp_path, None, {"POLICY_FILE": str(file)})
    assert line in fault


def test_what_the_file_of_rules_and_the_configuration_both_say_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text(RULES)
    assert faults(tmp_path, "routing:\n  policy_file: rules.json\n  sensitivity: {keywords: [a]}\n") == [
        "routing.sensitivity.keywords (file config.yaml:3): "
        "routing.policy_file (file config.yaml:2) says where requests go too; keep one"
    ]
