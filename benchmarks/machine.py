"""What this machine offers to a measurement: CPUs, tools and their versions.

One CPU is given to the proxy under test and another to everything else, so that ratios of one run compare. A child inherits
the CPUs of the thread that starts it: `pinned` sets them around a start and puts them back.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tool:
    """A program a measurement wants."""

    name: str
    purpose: str
    """What is left out or replaced without it."""
    install: str

    @property
    def path(self) -> str | None:
        """Where it is; system folders count too, since nginx often lives outside a user's path."""
        return shutil.which(self.name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")


NGINX = Tool("nginx", "no ratio to nginx", "apt-get install nginx-light")
WRK = Tool("wrk", "a slower load generator in Python is used: requests/s are its limit, not the proxy's", "apt-get install wrk")
COMPILER = Tool("cc", "a slower upstream in Python is used: requests/s and ratios are its limit", "apt-get install gcc libc6-dev")
TOOLS = (NGINX, WRK, COMPILER)


@dataclass(frozen=True)
class Cpus:
    """Which CPU does what; None where this system cannot pin."""

    load: frozenset[int] | None
    proxy: frozenset[int] | None
    note: str = ""
    all: frozenset[int] | None = None

    def shared(self) -> Cpus:
        """Everything on every CPU, as the operating system gives them out."""
        return Cpus(self.all, self.all, self.note, self.all)


def plan_cpus() -> Cpus:
    """The last usable CPU for the proxy, the one before it for the upstream, the load and this process."""
    if sys.platform != "linux":
        return Cpus(None, None, "this system cannot pin a process to a CPU: ratios are rough")
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        only = frozenset(usable)
        return Cpus(
            only,
            only,
            all=only,
            note="one CPU for everything: upstream and load generator take their share of it, ratios are rough",
        )
    return Cpus(frozenset(usable[-2:-1]), frozenset(usable[-1:]), all=frozenset(usable))


@contextlib.contextmanager
def pinned(cpus: frozenset[int] | None) -> Iterator[None]:
    """What is started inside runs on `cpus`."""
    if cpus is None or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def stolen_s(statistics: Path = Path("/proc/stat")) -> float:
    """CPU time in seconds that the host of a virtual machine has given to others since it started, over all CPUs; 0 where that
    cannot be told. From the eighth figure of `cpu` in `statistics`."""
    try:
        ticks = int(statistics.read_text().split(maxsplit=9)[8])
    except (OSError, ValueError, IndexError):
        return 0.0
    return ticks / os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, str | int | float]:
    """What a reader of the figures must know about the machine. Names no host."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": model,
        "cpus": os.cpu_count() or 1,
        "python": platform.python_version(),
        "python_built_optimised": "yes"
        if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
        else "unknown",
        "load_average": round(os.getloadavg()[0], 2),
    }
