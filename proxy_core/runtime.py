"""One gateway, from its socket to its last record: builds the parts, starts them in order, ends them in order.

Start: listen, open the journal, remember sessions, serve. End: stop accepting, let transactions finish within the drain time,
write what waits, close. A second call to end forces it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from proxy_core import logs
from proxy_core.api.address import publish_address, withdraw_address
from proxy_core.api.server import ControlServer
from proxy_core.api.token import control_token
from proxy_core.app import data_plane
from proxy_core.control.config_watch import ConfigWatch
from proxy_core.control.feed import Feed, FeedKind
from proxy_core.control.holds import HoldQueue
from proxy_core.control.local import LocalControlPlane
from proxy_core.control.plane import ControlPlane, GatewayState, HoldInfo
from proxy_core.control.policy_book import PolicyBook
from proxy_core.control.route_book import RouteBook
from proxy_core.gateway import LAST_WORDS_S, Gateway
from proxy_core.ids import new_session_id, new_ulid
from proxy_core.interceptors.metrics import GatewayMetrics
from proxy_core.journal.client_keys import ClientKeys
from proxy_core.journal.journal import Journal
from proxy_core.limits.client_keys import KeyCheck
from proxy_core.limits.ledgers import Ledger, LocalLedger, SharedLedger
from proxy_core.limits.limiter import Limiter
from proxy_core.loop_lag import LoopLag
from proxy_core.policies.stats import PolicyStats
from proxy_core.policy_mesh import PolicyMesh
from proxy_core.policy_services import PolicyServices
from proxy_core.recalling import recall_sessions
from proxy_core.routing.probes import Probes
from proxy_core.routing.router import Router
from proxy_core.routing.transport import UpstreamTransport
from proxy_core.routing.upstreams import Upstreams
from proxy_core.running import Running
from proxy_core.server import EmbeddedServer, IngressProtocol, listen
from proxy_core.sessions.detector import SessionDetector
from proxy_core.sessions.prices import PriceBook
from proxy_core.settings import Settings
from proxy_core.settings_sources import LoadedSettings
from proxy_core.tasks import spawn

if TYPE_CHECKING:
    from proxy_core.interceptors.process import InterceptorProcess

log = logging.getLogger(__name__)


class GatewayRuntime:
    """A gateway that can be started once and ended once, on the loop that calls it."""

    plane: ControlPlane
    """All that a front end needs; there from `start` on."""
    address: str
    """`host:port` that it listens on; there from `start` on."""
    control_address = ""
    """`host:port` of the control API; empty where it is not served."""

    def __init__(
        self,
        settings: Settings,
        *,
        data_dir: Path,
        demo: bool = False,
        load: Callable[[], LoadedSettings] | None = None,
        config: Path | None = None,
        transport: UpstreamTransport | None = None,
        front: Callable[[ASGIApp], ASGIApp] | None = None,
        new_id: Callable[[int], str] = new_ulid,
    ) -> None:
        """`load` reads all sources of settings anew; without it they stay as they are. `config` is the file to watch.

        For a replay: `transport` stands in for the one to the network, `front` wraps the data plane, `new_id` names
        transactions."""
        self._settings = settings
        self._load = load
        self._config = config
        self._data_dir = data_dir
        self._demo = demo
        self._given_transport = transport
        self._front = front
        self._new_id = new_id
        self._started_at = time.time()
        self._ended = asyncio.Event()
        self._ending = False
        self._control: ControlServer | None = None
        self._keys: KeyCheck | None = None
        self._ledger: Ledger | None = None

    async def start(self) -> None:
        """Listen, open the journal and serve. Raises ListenError, StoreError, ServerStartupError; then nothing is left open."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        listener = listen(settings.server.host, settings.server.port)
        self.address = address_of(listener)
        control_listener: socket.socket | None = None
        try:
            if settings.control.enabled:
                remedy = "choose another with --control-port"
                control_listener = listen(settings.control.host, settings.control.port, remedy=remedy)
                self.control_address = address_of(control_listener)
            self._journal = await Journal.open(settings.journal, self._data_dir)
        except BaseException:
            _close(listener, control_listener)
            raise
        try:
            self._build(loop)
            if control_listener is not None:
                self._control = ControlServer(
                    self.plane, settings=settings.control, token=control_token(self._data_dir), listener=control_listener
                )
            await self._open_limits()
            await self._remember_sessions()
            await self._policies.restore()
            await self._routes.restore()
            self._holds.restore(await self._journal.store.holds(settings.holds.max_total, pending=True))
            self._serving = spawn(self._server.run_embedded(listener), name="gateway")
            ready = spawn(self._server.ready.wait(), name="wait for the gateway")
            await asyncio.wait([self._serving, ready], return_when=asyncio.FIRST_COMPLETED)
            if self._serving.done():
                ready.cancel()
                await self._serving
        except BaseException:
            _close(listener, control_listener)
            await self._close_limits()
            await self._journal.close()
            raise
        if self._control is not None:
            self._control.start()
            publish_address(self._data_dir, self.control_address)
        if self._watch is not None:
            self._watch.start()
        if self._interceptors is not None:
            self._interceptors.start()
        self._lag.start()
        self._probes.start()
        self._warming = spawn(self._prices.load(), name="load prices")
        self._remembering = spawn(self._routes.remember(), name="remember the figures of routing")
        self._closing = spawn(self._close_after_serving(), name="close the gateway")

    async def reload(self) -> bool:
        """Read the configuration anew and put in force what can be. Returns whether it was valid; the log says the rest."""
        if self._watch is None:
            log.warning("there is no configuration to read again")
            return False
        return await self._watch.reload()

    def begin_shutdown(self) -> None:
        """Stop accepting and drain; called again, stop at once."""
        if self._ending:
            self._server.force_exit = True
        else:
            self._ending = True
            log.info("draining: %d transactions in flight", len(self._gateway.running))
            self._holds.shutdown()
            self._server.stop()

    async def wait_closed(self) -> None:
        """Return when everything has ended and is written. Raises what the server died of, if it did."""
        await self._ended.wait()
        await self._serving

    def _build(self, loop: asyncio.AbstractEventLoop) -> None:
        settings = self._settings
        self._feed = Feed()
        self._metrics = GatewayMetrics()
        self._prices = PriceBook(loop.time, settings.prices)
        self._lag = LoopLag(loop)
        self._sessions = SessionDetector(
            digest=self._journal.digest,
            new_id=new_session_id,
            ttl_s=settings.sessions.ttl_s,
            max_sessions=settings.sessions.max_sessions,
            clock=loop.time,
            min_common_messages=settings.sessions.min_common_messages,
        )
        self._transport = self._given_transport or UpstreamTransport(max_connections=settings.routing.max_connections)
        self._upstreams = Upstreams(settings)
        self._router = Router(settings, self._upstreams)
        self._holds = HoldQueue(
            settings.holds, clock=loop, wall=time.time, new_id=new_ulid, publish=self._tell_of_hold, record=self._journal.append
        )
        store = self._journal.engine
        shared = self._journal.kind == "postgres"
        self._ledger = (
            SharedLedger(store, time.time, new_ulid(time.time_ns() // 1_000_000)) if shared else LocalLedger(store, time.time)
        )
        if settings.server.auth != "passthrough":
            self._keys = KeyCheck(settings.server.auth, store=ClientKeys(store), configured=settings.keys, clock=loop.time)
        limiter = Limiter(settings.limits, ledger=self._ledger, prices=self._prices, clock=loop.time)
        self._interceptors = _interceptors(settings, self._data_dir)
        stats = PolicyStats()
        self._policies = PolicyBook(settings, journal=self._journal, feed=self._feed, stats=stats)
        self._gateway = Gateway(
            settings=settings,
            upstreams=self._upstreams,
            router=self._router,
            transport=self._transport,
            journal=self._journal,
            sessions=self._sessions,
            prices=self._prices,
            feed=self._feed,
            metrics=self._metrics,
            policies=self._policies,
            services=self._services,
            loop=loop,
            keys=self._keys,
            limiter=limiter,
            new_id=self._new_id,
            interceptors=self._interceptors,
        )
        self._routes = RouteBook(
            settings,
            router=self._router,
            upstreams=self._upstreams,
            journal=self._journal,
            feed=self._feed,
            prices=self._prices,
            pool=self._gateway.pool,
            clock=loop.time,
        )
        self._metrics.follow(self._routes.stats.note)
        self._probes = Probes(self._gateway.pool, self._transport, settings.routing.probes, loop=loop)
        self._metrics.watch_labelled(
            "luthien_upstream_probes",
            "Times that luthien itself asked an upstream whether it is there.",
            ("upstream", "result"),
            lambda: self._probes.results,
        )
        self.plane = LocalControlPlane(
            gateway=self._gateway,
            journal=self._journal,
            feed=self._feed,
            state=self._state,
            router=self._router,
            upstreams=self._upstreams,
            policies=self._policies,
            holds=self._holds,
            routes=self._routes,
            kill=self._kill,
            session_ttl_s=settings.sessions.ttl_s,
            session_counts=lambda: self._sessions.statistics,
        )
        self._watch: ConfigWatch | None = None
        if self._load is not None:
            self._watch = ConfigWatch(
                load=self._load,
                book=self._policies,
                routes=self._routes,
                apply=self._take,
                file=self._config,
                started_with=settings,
            )
        labels = ("policy", "action", "mode")
        self._metrics.watch_labelled("luthien_policy_decisions", "What policies decided.", labels, stats.decisions)
        self._metrics.watch("luthien_holds_pending", "Things that wait for a person.", lambda: self._holds.pending_count)
        writer = self._journal.writer
        self._metrics.watch("luthien_journal_queue_depth", "Records waiting for their commit.", lambda: writer.depth)
        self._metrics.watch(
            "luthien_journal_oldest_unflushed_seconds", "Age of the oldest record waiting.", lambda: writer.oldest_s
        )
        self._metrics.watch("luthien_journal_spilled", "Records in the spool.", lambda: writer.spilled)
        self._metrics.watch("luthien_journal_dropped", "Records lost while the store was in trouble.", lambda: writer.dropped)
        self._metrics.watch("luthien_transactions_active", "Transactions that run now.", lambda: len(self._gateway.running))
        self._metrics.watch("luthien_sessions_active", "Sessions within their time to live.", lambda: self._sessions.active)
        self._metrics.watch("luthien_loop_lag_seconds", "Worst lateness of the event loop.", lambda: self._lag.worst_s)
        self._metrics.watch_counts("luthien_session_lookups", "How sessions were told.", "result", lambda: self._sessions.lookups)
        self._metrics.watch_counts("luthien_session_events", "What became of sessions.", "event", lambda: self._sessions.events)
        if (watching := self._interceptors) is not None:
            counts = self._metrics.watch_counts
            counts("luthien_interceptor_events", "Records given to interceptors.", "type", watching.events_taken)
            counts("luthien_interceptor_dropped", "Records that interceptors did not take.", "type", watching.dropped)
            counts("luthien_interceptor_errors", "Faults of interceptors.", "type", watching.errors)
        mesh = PolicyMesh(
            gateway=self._gateway,
            router=self._router,
            upstreams=self._upstreams,
            journal=self._journal,
            metrics=self._metrics,
            settings=settings,
            keys=self._keys,
        )
        policies = self._policies
        app = data_plane(
            gateway=self._gateway, mesh=mesh, metrics=self._metrics, state=self._state, settings=lambda: policies.settings
        )
        if self._front is not None:
            app = self._front(app)
        protocol = type("Ingress", (IngressProtocol,), {"settings": settings.server})
        self._server = EmbeddedServer(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=int(settings.server.keep_alive_s),
                timeout_graceful_shutdown=int(settings.server.drain_s) or 1,
            ),
            settings.server,
        )

    def _take(self, settings: Settings) -> None:
        """Put in force what changes beside the policies, in the same moment as they."""
        self._holds.settings = settings.holds
        self._gateway.take(settings)
        logs.set_level(settings.logging.level)

    def _kill(self, transaction_id: str, who: str) -> bool:
        self._holds.no_retry(transaction_id)
        return self._gateway.kill(transaction_id, who)

    def _tell_of_hold(self, kind: FeedKind, hold: HoldInfo) -> None:
        running = self._gateway.running.get(hold.transaction_id)
        self._feed.publish(kind, running.row if running is not None else None, hold.id)

    def _services(self, running: Running) -> PolicyServices:
        """What the policies of one transaction may ask for."""
        return PolicyServices(
            running,
            upstreams=self._upstreams,
            router=self._router,
            transport=self._transport,
            errands=self._gateway.errands,
            admissions=self._gateway.admissions,
            prices=self._prices,
            holds=self._holds,
            feed=self._feed,
            pause=self._gateway.pause,
        )

    async def _open_limits(self) -> None:
        """Take up what was spent, and read the keys."""
        server = self._settings.server
        if self._ledger is not None:
            await self._ledger.open()
        if self._keys is not None:
            await self._keys.start()
        elif not is_loopback(server.host):
            log.warning(
                "%s can be reached from other machines, and whoever reaches it passes; set 'server.auth' to 'gateway' or 'both'",
                server.host,
            )

    async def _close_limits(self) -> None:
        if self._keys is not None:
            await self._keys.stop()
        if self._ledger is not None:
            await self._ledger.close()

    async def _remember_sessions(self) -> None:
        settings = self._settings.sessions
        await recall_sessions(
            self._sessions,
            self._journal.store,
            ttl_s=settings.ttl_s,
            max_sessions=settings.max_sessions,
            now_ns=time.time_ns(),
        )

    async def _close_after_serving(self) -> None:
        try:
            await asyncio.wait([self._serving])
            if last_words := set(self._server.server_state.tasks):
                # Transactions that were stopped still tell their clients and leave their records.
                await asyncio.wait(last_words, timeout=LAST_WORDS_S)
            if self._watch is not None:
                await self._watch.stop()
            if self._control is not None:
                withdraw_address(self._data_dir, self.control_address)
                await self._control.close()
            if self._interceptors is not None:
                await self._interceptors.close()
            await self._probes.stop()
            self._remembering.cancel()
            await asyncio.wait([self._remembering])
            await self._close_limits()
            await self._journal.close()
            await self._transport.aclose()
            await asyncio.wait([self._warming])
        finally:
            self._lag.stop()
            self._ended.set()

    def _state(self) -> GatewayState:
        writer = self._journal.writer
        return GatewayState(
            address=self.address,
            status="stopped" if self._ended.is_set() else "draining" if self._ending else "serving",
            started_at=self._started_at,
            active=len(self._gateway.running),
            total=self._gateway.total,
            store=self._journal.kind,
            journal_status=writer.status,
            journal_queue=writer.depth,
            journal_oldest_ms=writer.oldest_s * 1e3,
            spilled=writer.spilled,
            loop_lag_ms=self._lag.worst_s * 1e3,
            upstreams=tuple((name, one.base_url) for name, one in self._settings.upstreams.items()),
            demo=self._demo,
            control=self.control_address,
            sequence=self._feed.last_sequence,
        )


def _interceptors(settings: Settings, data_dir: Path) -> InterceptorProcess | None:
    """None, and nothing imported, where none is configured."""
    if not settings.interceptors:
        return None
    from proxy_core.interceptors.registry import build_interceptors

    return build_interceptors(settings, data_dir)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address_of(listener: socket.socket) -> str:
    """`host:port` that a socket listens on."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _close(*listeners: socket.socket | None) -> None:
    for listener in listeners:
        if listener is not None:
            listener.close()
