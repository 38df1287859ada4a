"""The data plane as ASGI: luthien's own paths as a Starlette app, everything else straight to the gateway.

Own paths are matched before any upstream's, and answer without touching an upstream.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy_core import __version__, data_plane_docs, policy_mesh
from proxy_core.control.plane import GatewayState
from proxy_core.gateway import Gateway
from proxy_core.interceptors.metrics import GatewayMetrics
from proxy_core.policy_mesh import AUDIT_PREFIX, PolicyMesh
from proxy_core.settings import Settings

OWN_PATHS = frozenset(
    {
        "/",
        "/health",
        "/health/liveliness",
        "/health/liveness",
        "/health/readiness",
        "/livez",
        "/readyz",
        "/healthz",
        "/metrics",
        "/config",
        "/docs",
        "/favicon.ico",
        *policy_mesh.PATHS,
    }
)


def data_plane(
    *,
    gateway: Gateway,
    mesh: PolicyMesh,
    metrics: GatewayMetrics,
    state: Callable[[], GatewayState],
    settings: Callable[[], Settings],
) -> ASGIApp:
    """The whole data plane: a plain ASGI callable, because one Starlette route costs more than finding the endpoint.

    `settings` gives the configuration as far as it is in force.
    """

    async def health(request: Request) -> Response:
        now = state()
        return JSONResponse(
            {
                "status": "ok",
                "version": __version__,
                "state": now.status,
                "uptime_s": round(time.time() - now.started_at, 1),
                "active": now.active,
                "journal": now.journal_status,
            }
        )

    async def live(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        now = state()
        reasons = []
        if now.status != "serving":
            reasons.append(f"the gateway is {now.status}")
        if now.journal_status == "failing":
            reasons.append("the journal cannot be written")
        if reasons:
            return JSONResponse({"status": "unavailable", "reasons": reasons}, status_code=503)
        return JSONResponse({"status": "ok"})

    async def exposition(request: Request) -> Response:
        return Response(metrics.exposition(), media_type="text/plain; version=1.0.0; charset=utf-8")

    async def config(request: Request) -> Response:
        return JSONResponse(shown_settings(settings()))

    async def docs(request: Request) -> Response:
        return HTMLResponse(data_plane_docs.page(__version__))

    async def root(request: Request) -> Response:
        return PlainTextResponse(f"luthien {__version__}: point an OpenAI SDK at /v1, an Anthropic or Ollama client here\n")

    async def nothing(request: Request) -> Response:
        return Response(status_code=204)

    get = ["GET", "HEAD"]
    own = Starlette(
        routes=[
            Route("/", root, methods=get),
            Route("/health", health, methods=get),
            Route("/health/liveliness", live, methods=get),
            Route("/health/liveness", live, methods=get),
            Route("/livez", live, methods=get),
            Route("/healthz", live, methods=get),
            Route("/health/readiness", ready, methods=get),
            Route("/readyz", ready, methods=get),
            Route("/metrics", exposition, methods=get),
            Route("/config", config, methods=get),
            Route("/docs", docs, methods=get),
            Route("/favicon.ico", nothing, methods=get),
            *mesh.routes,
        ]
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] not in OWN_PATHS and not scope["path"].startswith(AUDIT_PREFIX):
            await gateway(scope, receive, send)
        else:
            await own(scope, receive, send)

    return app


def shown_settings(settings: Settings) -> dict[str, Any]:
    """The settings as anyone may see them: no secrets, no passwords in URLs."""
    tree = settings.model_dump(mode="json")
    for one in tree["upstreams"].values():
        if one["api_key"] is not None:
            one["api_key"] = "[set]"
        one["api_keys"] = ["[set]"] * len(one["api_keys"])
        if one["proxy"]:
            one["proxy"] = "[set]"
    tree["routing"]["sensitivity"]["keywords"] = ["[set]"] * len(settings.routing.sensitivity.keywords)
    for one in tree["keys"].values():
        one.update({name: "[set]" for name in ("key", "sha256") if one[name] is not None})
    for chain in (tree["policies"], *(one["policies"] for one in tree["chains"])):
        for policy in chain:
            # a parameter may be a secret, or hold one at any depth; the control API shows those that are none
            policy["params"] = dict.fromkeys(policy["params"], "[set]")
    if settings.interceptors:
        from proxy_core.interceptors.registry import shown_config

        for one, known in zip(tree["interceptors"], settings.interceptors, strict=True):
            one["config"] = shown_config(known)
    if tree["journal"]["database_url"]:
        from sqlalchemy.engine import make_url

        tree["journal"]["database_url"] = make_url(tree["journal"]["database_url"]).render_as_string(hide_password=True)
    return tree
