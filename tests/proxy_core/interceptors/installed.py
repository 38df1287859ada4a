"""A package with an interceptor, installed as far as Python is concerned: its own process finds it as the gateway does."""

from __future__ import annotations

import importlib
import textwrap
from pathlib import Path

import pytest

from proxy_core.interceptors import registry

HEAD = """
from __future__ import annotations
import os, sys, time
from proxy_core.interceptors.base import Begun, Config, Finished, Interceptor
"""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, body: str) -> None:
    """An interceptor of type `name`; `body` is that of its class."""
    package = folder / f"package_of_{name}"
    info = package / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = module_of_{name}:Own\n")
    source = f"{HEAD}\nclass Own(Interceptor[Config]):\n{textwrap.indent(textwrap.dedent(body), '    ')}"
    (package / f"module_of_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(package))
    importlib.invalidate_caches()
