"""Documentation that is made from the code says what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_generated_pages_are_fresh() -> None:
    result = subprocess.run([sys.executable, "scripts/docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_readme_and_the_example_environment_name_only_what_exists() -> None:
    import re

    from proxy_core.settings_environment import (
        NOT_SETTINGS,
        ONE_UPSTREAM_NAMES,
        PREFIX,
        PUBLIC_KEY,
        PUBLIC_URL,
        SHARED_API_KEYS,
        SHARED_BASE_URLS,
        SHARED_NAMES,
    )
    from proxy_core.settings_tree import kind_at

    shared = {*SHARED_NAMES, *SHARED_BASE_URLS, *SHARED_API_KEYS, *ONE_UPSTREAM_NAMES, *NOT_SETTINGS, PUBLIC_KEY, PUBLIC_URL}
    for line in (ROOT / ".env.example").read_text("utf-8").splitlines():
        if match := re.fullmatch(r"#? ?([A-Z][A-Z_]+)=.*", line):
            name = match[1]
            assert name in shared or kind_at(tuple(name.removeprefix(PREFIX).lower().split("__"))), name
    for name in re.findall(r"\]\(((?!http)[^)#]+)\)", (ROOT / "README.md").read_text("utf-8")):
        assert (ROOT / name).exists(), name
