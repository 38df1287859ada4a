"""Finding policies by name and building them: what each name means, and what every fault says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from proxy_core.errors import ConfigurationError
from proxy_core.policies import registry
from proxy_core.policies.registry import BUILT_IN, build_policy, policy_class, registered, registry_name
from proxy_core.settings import Settings

ALL_CAPS = '''
"""Shouts."""

from __future__ import annotations

from proxy_core.policies.base import ControlPolicy, PolicyParams, tunable
from proxy_core.transaction import TransactionContext


class Limits(PolicyParams):
    chars: int = 10
    """Most characters."""


class AllCapsParams(PolicyParams):
    level: float = tunable(0.5, ge=0, le=1)
    """How loud."""
    limits: Limits = Limits()


class AllCapsPolicy(ControlPolicy[AllCapsParams]):
    """Shouts back."""

    params_model = AllCapsParams

    async def apply(self, context: TransactionContext) -> TransactionContext:
        return context
'''


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "all_caps.py").write_text(ALL_CAPS, "utf-8")
    return Settings(policy_paths=[str(tmp_path)])


@pytest.mark.parametrize(
    ("use", "name"),
    [
        ("strip_secrets", "strip_secrets"),
        ("StripSecretsPolicy", "strip_secrets"),
        ("SerialPolicy", "serial"),
        ("CompoundPolicy", "serial"),
        ("compound", "serial"),
        ("AddApiKeyHeader", "add_api_key_header"),
        ("AddApiKeyHeaderFromEnv", "add_api_key_header_from_env"),
        ("SetBackendPolicy", "set_backend"),
        ("BackendCallPolicy", "backend_call"),
        ("LeakedApiKeyDetection", "leaked_api_key_detection"),
        ("NoopPolicy", "noop"),
        ("NoOpPolicy", "noop"),
    ],
)
def test_class_names_and_old_names_mean_the_policy(use: str, name: str) -> None:
    assert registry_name(use) == name
    assert name in BUILT_IN


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_policy_is_there_and_says_what_it_does(name: str) -> None:
    found = policy_class(name)
    assert found.registry_name() == name
    description = next(one for one in registered() if one.name == name)
    assert description.summary
    assert "\n" not in description.summary
    assert all(param.meaning for param in description.params), [param.name for param in description.params if not param.meaning]


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("strip_secret", "did you mean 'strip_secrets'?"),
        ("compond", "did you mean 'serial'?"),
        ("StripSecret", "did you mean 'strip_secrets'?"),
        ("os:system", "named, never loaded by its module"),
        ("proxy_core.policies.noop", "named, never loaded by its module"),
        ("../../evil", "named, never loaded by its module"),
        ("", "`luthien policies list` shows them all"),
        ("\x1b[31m", "`luthien policies list` shows them all"),
        ("x" * 100_000, "`luthien policies list` shows them all"),
        ("base", "no policy is called 'base'"),
    ],
)
def test_other_names_are_refused_with_the_nearest(use: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        policy_class(use)
    assert said in str(refused.value)


def test_a_file_of_ones_own_is_found_and_described(settings: Settings) -> None:
    policy = build_policy("all_caps", {"level": 0.75}, settings)
    assert policy.params.model_dump() == {"level": 0.75, "limits": {"chars": 10}}
    description = registered(settings)[-1]
    assert (description.name, description.summary, description.problem) == ("all_caps", "Shouts back.", "")
    level = description.params[0]
    assert (level.tunable, level.low, level.high, level.step, level.default) == (True, 0, 1, 0.01, 0.5)
    with pytest.raises(ConfigurationError):
        build_policy("all_caps", {}, Settings())


def test_faults_of_parameters_are_lines_with_their_place(settings: Settings) -> None:
    with pytest.raises(ConfigurationError) as refused:
        build_policy("all_caps", {"level": 3, "levle": 1, "limits": {"char": 1, "chars": "x"}}, settings, "policies[2]")
    assert str(refused.value).splitlines() == [
        "policies[2].params.level: input should be less than or equal to 1",
        "policies[2].params.limits.chars: input should be a valid integer, unable to parse string as an integer",
        "policies[2].params.limits.char: unknown parameter; did you mean chars?",
        "policies[2].params.levle: unknown parameter; did you mean level?",
    ]
    with pytest.raises(ConfigurationError, match=r"^use: no policy is called 'all_cap'; did you mean 'all_caps'\?$"):
        build_policy("all_cap", {}, settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def (", "all_caps.py:1: invalid syntax"),
        ("x = 1\ny = 1 / 0\n", "all_caps.py:2: ZeroDivisionError: division by zero"),
        ("import nonexistent_module_of_mine", "all_caps.py:1: ModuleNotFoundError"),
        ("raise SystemExit(3)", "all_caps.py:1: SystemExit: 3"),
        ("", "holds no policy called 'all_caps'; write `class AllCaps(ControlPolicy[…])`"),
        ("\0", "all_caps.py:1:"),
    ],
)
def test_a_file_that_does_not_work_is_named_with_its_line(settings: Settings, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "all_caps.py").write_text(text, "utf-8")
    with pytest.raises(ConfigurationError) as refused:
        policy_class("all_caps", settings)
    assert said in str(refused.value)
    assert said in registered(settings)[-1].problem


def test_a_file_that_changed_is_read_again(settings: Settings, tmp_path: Path) -> None:
    first = policy_class("all_caps", settings)
    assert policy_class("all_caps", settings) is first
    file = tmp_path / "all_caps.py"
    file.write_text(ALL_CAPS.replace("Shouts back", "Whispers"), "utf-8")
    os.utime(file, ns=(1, 1))
    assert registered(settings)[-1].summary == "Whispers."


def test_tests_and_private_files_are_no_policies_and_built_in_names_are_taken(settings: Settings, tmp_path: Path) -> None:
    for name in ("test_all_caps.py", "_draft.py", "conftest.py", "notes.txt"):
        (tmp_path / name).write_text("raise RuntimeError", "utf-8")
    (tmp_path / "noop.py").write_text("raise RuntimeError", "utf-8")
    own = registered(settings)[len(BUILT_IN) :]
    assert [one.name for one in own] == ["all_caps", "noop"]
    assert "called 'noop' already" in own[1].problem
    assert policy_class("noop", settings).__module__ == "proxy_core.policies.noop"


def test_a_package_can_bring_policies(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    shouting = policy_class("all_caps", settings)

    class Entry:
        name, value, dist = "shout", "shouting:Shout", None

        def load(self) -> Any:
            return shouting

    class Broken(Entry):
        name, value = "broken", "shouting:Nothing"

        def load(self) -> Any:
            raise ImportError("no module named shouting")

    class Wrong(Entry):
        name = "wrong"

        def load(self) -> Any:
            return dict

    monkeypatch.setattr(registry, "_entry_points", lambda: {"shout": Entry(), "broken": Broken(), "wrong": Wrong()})
    assert policy_class("shout") is shouting
    with pytest.raises(ConfigurationError, match=r"'broken' of the package cannot be loaded \(shouting:Nothing\)"):
        policy_class("broken")
    with pytest.raises(ConfigurationError, match="is no ControlPolicy"):
        policy_class("wrong")
    assert [one.problem != "" for one in registered()[len(BUILT_IN) :]] == [True, False, True]
