"""One HEAD to somewhere, to see whether it can be reached: no key, no redirect, three seconds, and never an exception."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping

from msgspec import Struct

from proxy_core.settings import UpstreamSettings

TIMEOUT_S = 3.0
OWN_HEALTH = ("status", "version", "state", "journal")
"""What luthien's own `/health` says, among other things."""


class Answer(Struct, frozen=True):
    """What came back, or why nothing did."""

    status: int | None = None
    milliseconds: float = 0.0
    date: str = ""
    fault: str = ""
    proxied: bool = False


async def head(upstream: UpstreamSettings, *, environ: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> Answer:
    """Ask the root of an upstream, the way that the gateway reaches it. Any HTTP answer means that it is there."""
    import aiohttp

    started = time.monotonic()
    proxied = upstream.proxy is not None or any(environ.get(name) for name in ("HTTPS_PROXY", "https_proxy"))
    try:
        context = ssl.create_default_context(cafile=upstream.ca_file)
        limit = aiohttp.ClientTimeout(total=timeout_s)
        async with (
            aiohttp.ClientSession(timeout=limit, trust_env=True) as session,
            session.head(upstream.base_url, ssl=context, proxy=upstream.proxy, allow_redirects=False) as answer,
        ):
            took = (time.monotonic() - started) * 1000
            via = proxied and upstream.base_url.startswith("https")
            return Answer(answer.status, took, answer.headers.get("date", ""), proxied=via)
    except TimeoutError:
        return Answer(fault=f"no answer within {timeout_s:g} s")
    except aiohttp.ClientConnectorCertificateError as fault:
        return Answer(fault=f"its certificate is not trusted: {' '.join(str(fault.certificate_error).split())[:120]}")
    except (aiohttp.ClientError, OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or str(fault) or type(fault).__name__
        return Answer(fault=" ".join(reason.split())[:160])


async def listener_name(root: str) -> str:
    """`luthien` where luthien answers at `root`, another word where something else does. Raises OSError, TimeoutError."""
    import aiohttp

    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
        session.get(f"{root}/health") as answer,
    ):
        body = await answer.content.read(2_000)
        return "luthien" if all(f'"{name}"'.encode() in body for name in OWN_HEALTH) else "other"
