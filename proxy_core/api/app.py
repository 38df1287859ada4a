"""The control API as a FastAPI app over a ControlPlane. What the screen can do, this can do.

It knows nothing of tokens and origins: the guard in front of it does.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from proxy_core import __version__
from proxy_core.api.agents import add_agent_routes
from proxy_core.api.answers import answer, answer_errors, returns
from proxy_core.api.changes import add_change_routes
from proxy_core.api.events import EventStreams
from proxy_core.api.holds import add_hold_routes
from proxy_core.api.mcp import PATH as MCP_PATH
from proxy_core.api.mcp import McpPort
from proxy_core.api.openapi import describe
from proxy_core.api.policies import add_policy_routes
from proxy_core.api.reference import page
from proxy_core.api.routing import add_routing_routes
from proxy_core.api.sessions import add_session_routes
from proxy_core.api.shapes import EventData
from proxy_core.api.transactions import Expression, add_transaction_routes
from proxy_core.control.filters import parse
from proxy_core.control.plane import ControlPlane, GatewayState

SUMMARY = "Watch and control a running luthien: its transactions, policies and holds."

After = Annotated[int | None, Query(ge=0, description="Sequence number after which to begin; without it only new events come.")]
LastEventId = Annotated[
    str | None, Header(alias="last-event-id", max_length=64, description="The same, as an EventSource sends it on its own.")
]


def control_app(plane: ControlPlane, stopping: asyncio.Event | None = None, *, mcp_write: bool = False) -> FastAPI:
    """All routes. `stopping` ends the streams of events; `mcp_write` offers tools that act over MCP."""
    app = FastAPI(
        title="luthien control API",
        version=__version__,
        summary=SUMMARY,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        default_response_class=Response,
        separate_input_output_schemas=False,
    )
    streams = EventStreams(plane, stopping or asyncio.Event())
    answer_errors(app)

    @app.get("/api/state", tags=["state"], responses=returns(GatewayState), summary="How the gateway fares")
    async def state() -> Response:
        return answer(plane.state())

    @app.get("/api/events", tags=["state"], responses=_event_stream(), summary="What happens, as server-sent events")
    async def events(after: After = None, last_event_id: LastEventId = None, filter: Expression = "") -> Response:  # noqa: A002 - its name outside
        """`hello` comes first, with the newest sequence number and the start of this life of the gateway. Then one event for
        each record of the feed, named after its kind; `lost` with a count where the reader was too slow; a comment every
        15 s of silence. An EventSource that reconnects goes on where it was."""
        if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
            after = int(last_event_id)
        return StreamingResponse(streams.begin(after, parse(filter)), media_type="text/event-stream")

    add_transaction_routes(app, plane)
    add_policy_routes(app, plane)
    add_hold_routes(app, plane)
    add_routing_routes(app, plane)
    add_session_routes(app, plane)
    add_agent_routes(app, plane)
    add_change_routes(app, plane)

    app.router.routes.append(Route(MCP_PATH, McpPort(plane, write=mcp_write), include_in_schema=False))

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return answer(document(app))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page(document(app)))

    return app


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document."""
    return describe(app)


def _event_stream() -> dict[int | str, dict[str, Any]]:
    described = returns(EventData, 422)
    schema = described[200]["content"]["application/json"]
    described[200] = {
        "description": "A stream of events, each with its sequence number as id and an EventData as JSON",
        "content": {"text/event-stream": schema},
    }
    return described
