"""Fixtures for tests that send traffic through the real gateway."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.fault_upstream import FaultUpstream
from tests.gateway_fixtures import Postgres, RunningGateway, running_gateway, settings_for

# The same examples on every run: what passes here passes elsewhere. HYPOTHESIS_PROFILE=default looks for new ones.
hypothesis.settings.register_profile("steady", derandomize=True, database=None)
if "HYPOTHESIS_PROFILE" not in os.environ:
    hypothesis.settings.load_profile("steady")

LONGEST_NAME = 80


def pytest_sessionstart() -> None:
    """What is made until tests run stays until they end: looking for garbage in it would take a third of a second each time."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests run when they are asked for: `-m slow`."""
    if not config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        if slow:
            config.hook.pytest_deselected(items=slow)
            items[:] = [item for item in items if item not in slow]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One worker more than there are processors: a third of the time of a test is waiting for a disk or another process."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return usable + 1


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Tests are told apart by a short name; a body of 100 kB as a name would be sent between the workers with each report."""
    if isinstance(val, str | bytes) and len(val) > LONGEST_NAME:
        return f"{argname}-{ascii(val[:LONGEST_NAME])[:LONGEST_NAME]}-{len(val)}"
    return None


StartGateway = Callable[..., Awaitable[RunningGateway]]


@pytest.fixture(autouse=True)
def no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
async def upstream() -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream() as fault_upstream:
        yield fault_upstream


@pytest.fixture
async def start_gateway(upstream: FaultUpstream, tmp_path: Path) -> AsyncIterator[StartGateway]:
    """`await start_gateway(server={...}, routing={...})`: a gateway with these settings, in a folder of its own."""
    async with AsyncExitStack() as stack:
        count = 0

        async def start(**sections: Any) -> RunningGateway:
            nonlocal count
            count += 1
            settings = settings_for(upstream.url, **sections)
            return await stack.enter_async_context(running_gateway(settings, tmp_path / f"gateway-{count}"))

        yield start


@pytest.fixture
async def gateway(start_gateway: StartGateway) -> RunningGateway:
    """A gateway on SQLite with the tests' usual settings."""
    return await start_gateway()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """URL of a fresh database on a real PostgreSQL."""
    return postgres.new_database()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """None for the gateway's own SQLite file, then the URL of a fresh PostgreSQL database."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else None


@pytest.fixture
async def stored_gateway(start_gateway: StartGateway, database_url: str | None) -> RunningGateway:
    """A gateway on SQLite, then one on PostgreSQL."""
    return await start_gateway(journal={"database_url": database_url} if database_url else {})
