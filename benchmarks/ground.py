"""Where a measurement happens: a temporary folder, the upstream, and the proxies that can be started before it.

`Ground` is entered once a run and takes everything down at its end. A proxy runs alone on its CPU; the upstream and the load
share another.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import COMPILER, NGINX, WRK, Cpus, pinned, plan_cpus
from benchmarks.plain_client import Connection, question, request_bytes
from benchmarks.processes import BenchmarkError, Child, answers, clean_environment, free_port

HERE = Path(__file__).parent
SCREEN = (120, 36)
"""Columns and rows of the terminal the screen is measured in."""
READY_S = 30.0
POLL_S = 0.002

NGINX_CONF = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream mock {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests 100000000;
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


@dataclass
class Proxy:
    """Something that takes requests; `child` is None for the upstream itself, which is measured without a proxy."""

    name: str
    port: int
    child: Child | None
    started_at: float = 0.0

    def cpu_s(self) -> float | None:
        return self.child.cpu_s() if self.child else None

    def rss_mb(self) -> float | None:
        return self.child.rss_mb() if self.child else None

    def check(self) -> None:
        if self.child is not None and not self.child.alive:
            raise BenchmarkError(f"{self.name} ended during the measurement: {self.child.why()}")


class Ground:
    """The surroundings of one run."""

    def __init__(self, *, shape: str = "openai", cpus: Cpus | None = None, folder: Path | None = None) -> None:
        """`folder` is made and stays; without one there is a temporary one, gone at the end."""
        self.shape = shape
        self.cpus = cpus or plan_cpus()
        self.notes: list[str] = [self.cpus.note] if self.cpus.note else []
        self._open = ExitStack()
        self._given_folder = folder
        self._numbers = itertools.count(1)

    def __enter__(self) -> Ground:
        try:
            self.folder = self._given_folder or self._temporary_folder()
            self.folder.mkdir(exist_ok=True)
            if os.getuid() == 0:
                self.folder.chmod(0o711)  # nginx's worker is another user and must reach its folders
            self._open.enter_context(pinned(self.cpus.load))
            self.upstream_port = self._start_upstream()
        except BaseException:
            self._open.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _temporary_folder(self) -> Path:
        folder = tempfile.TemporaryDirectory(prefix="luthien-bench-", ignore_cleanup_errors=True)
        return Path(self._open.enter_context(folder))

    def _start_upstream(self) -> int:
        command = [sys.executable, "-m", "benchmarks.mock_upstream"]
        if COMPILER.path:
            program = self.folder / "mock_upstream"
            built = subprocess.run(
                [COMPILER.path, "-O2", "-o", str(program), str(HERE / "mock_upstream.c")],
                capture_output=True,
                text=True,
                timeout=60,
            )
            if built.returncode == 0:
                command = [str(program)]
            else:
                self.notes.append(
                    f"mock_upstream.c does not compile here, the one in Python is used: {built.stderr.strip()[:300]}"
                )
        log = self.folder / "upstream.log"
        child = self._open.enter_context(Child(command, log, environment=module_path()))
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and child.alive:
            said = log.read_text().split()
            if len(said) == 2:
                return int(said[1])
            time.sleep(POLL_S)
        raise BenchmarkError(f"the upstream did not start: {child.why()}")

    def direct(self) -> Proxy:
        """The upstream itself."""
        return Proxy("direct", self.upstream_port, None)

    @contextmanager
    def started(self, name: str, *, wrapper: list[str] | None = None, options: Sequence[str] = ()) -> Iterator[Proxy]:
        """`direct`, `nginx`, `luthien` (headless) or `luthien-ui`, ready to serve; ended when the block is left.

        `wrapper` stands in the command of a luthien for its program: something that runs it and watches. `options` are added to
        the command.
        """
        if name == "direct":
            yield self.direct()
            return
        port = free_port()
        folder = self.folder / f"{next(self._numbers)}-{name}"
        folder.mkdir()
        if name == "nginx":
            folder.chmod(0o755)
            command = self._nginx(folder, port)
        else:
            command = [*self.luthien_command(port, folder / "data", headless=name == "luthien"), *options]
            if wrapper:
                command = [*wrapper, *command[len(luthien()) :]]
        screen = SCREEN if name == "luthien-ui" else None
        with Child(command, folder / "output.log", cpus=self.cpus.proxy, terminal=screen, environment=module_path()) as child:
            proxy = Proxy(name, port, child, child.started_at)
            wait_until_listening(proxy)
            self.wait_until_serving(proxy)
            yield proxy

    def _nginx(self, folder: Path, port: int) -> list[str]:
        if not NGINX.path:
            raise BenchmarkError(f"nginx is missing: {NGINX.install}")
        config = folder / "nginx.conf"
        config.write_text(NGINX_CONF.format(folder=folder, port=port, upstream=self.upstream_port))
        return [NGINX.path, "-c", str(config), "-e", str(folder / "nginx-error.log")]

    def luthien_command(self, port: int, data: Path, *, headless: bool) -> list[str]:
        """How a user starts it, before this upstream."""
        return [
            *luthien(),
            "--no-ui" if headless else "--ui",
            *("--port", str(port), "--control-port", "0"),
            *("--data-dir", str(data)),
            *("--base-url", f"http://127.0.0.1:{self.upstream_port}"),
            *("--type", self.shape),
        ]

    def wait_until_serving(self, proxy: Proxy) -> None:
        """Until a request comes back with 200."""
        request = request_bytes(self.shape, question(self.shape, stream=False))
        deadline = time.monotonic() + READY_S
        said = "no answer"
        while time.monotonic() < deadline:
            proxy.check()
            try:
                with Connection(proxy.port) as connection:
                    status, body = connection.ask(request)
            except (OSError, BenchmarkError) as error:
                said = str(error)
            else:
                if status == 200:
                    return
                said = f"status {status}: {body[:200]!r}"
            time.sleep(0.1)
        raise BenchmarkError(f"{proxy.name} listens and does not serve: {said}")

    def wrk(
        self, proxy: Proxy, *, connections: int, seconds: float, stream: bool = False, spread: bool = False, turns: int = 0
    ) -> dict[str, float]:
        """Keep `connections` busy for `seconds`; counts and latencies (us). Uses the Python generator where wrk is missing."""
        with self.load(proxy, connections=connections, seconds=seconds, stream=stream, spread=spread, turns=turns) as running:
            return running()

    @contextmanager
    def load(
        self,
        proxy: Proxy,
        *,
        connections: int,
        seconds: float,
        stream: bool = False,
        spread: bool = False,
        turns: int = 0,
        rate: float = 0.0,
        sessions: bool = False,
    ) -> Iterator[LoadResult]:
        """The same while the block does something else; calling what it yields waits for the end and gives the figures."""
        environment = {
            "LUTHIEN_BENCH_SHAPE": self.shape,
            "LUTHIEN_BENCH_STREAM": str(int(stream)),
            "LUTHIEN_BENCH_SPREAD": str(int(spread)),
            "LUTHIEN_BENCH_TURNS": str(turns),
        }
        url = f"http://127.0.0.1:{proxy.port}"
        if WRK.path and not rate:
            script = str(HERE / "chat.lua")
            command = [WRK.path, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s", "-s", script, url]
        else:
            command = [sys.executable, "-m", "benchmarks.pace", str(proxy.port), "--shape", self.shape, "--rate", str(rate)]
            command += ["--connections", str(connections), "--seconds", str(seconds)]
            command += ["--stream"] * stream + ["--spread"] * spread + ["--sessions"] * sessions
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=clean_environment({**module_path(), **environment}),
        )
        try:
            yield LoadResult(process, proxy, seconds + 40)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


class LoadResult:
    """A load that runs; call it for its figures."""

    def __init__(self, process: subprocess.Popen[str], proxy: Proxy, patience_s: float) -> None:
        self._process = process
        self._proxy = proxy
        self._patience_s = patience_s

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def __call__(self) -> dict[str, float]:
        output, _ = self._process.communicate(timeout=self._patience_s)
        self._proxy.check()
        for line in output.splitlines():
            at = line.find("{")
            if at >= 0 and line[:at].strip() in ("", "figures"):
                figures: dict[str, float] = json.loads(line[at:])
                if not figures["requests"]:
                    raise BenchmarkError(f"{self._proxy.name} answered no request: {figures}")
                return figures
        raise BenchmarkError(f"the load generator said no figures: {output.strip()[-300:]}")


def luthien() -> list[str]:
    """The installed command beside this interpreter, else the module."""
    beside = Path(sys.executable).with_name("luthien")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "luthien_tui.cli"]


def module_path() -> dict[str, str]:
    """Lets a child find this package and the ones of the tree it stands in."""
    given = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(HERE.parent), *([given] if given else [])])}


def wait_until_listening(proxy: Proxy) -> float:
    """Seconds from its start until it accepts a connection."""
    while time.monotonic() < proxy.started_at + READY_S:
        if answers(proxy.port):
            return time.monotonic() - proxy.started_at
        proxy.check()
        time.sleep(POLL_S)
    raise BenchmarkError(f"{proxy.name} does not listen on port {proxy.port} after {READY_S:.0f} s")


def fetch(port: int, path: str) -> tuple[int, bytes]:
    """GET from a loopback port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
