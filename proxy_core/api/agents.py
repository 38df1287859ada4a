"""Routes about agents, and the dashboard."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path
from starlette.responses import Response

from proxy_core.api.answers import answer, returns
from proxy_core.api.shapes import AgentList
from proxy_core.control.plane import ControlNotFound, ControlPlane
from proxy_core.control.session_infos import AgentDetail, Dashboard

AgentId = Annotated[str, Path(max_length=600, description="The agent's id.")]


def add_agent_routes(app: FastAPI, plane: ControlPlane) -> None:
    @app.get("/api/dashboard", tags=["state"], responses=returns(Dashboard), summary="Today and the last hour in one look")
    async def dashboard() -> Response:
        return answer(await plane.dashboard())

    @app.get("/api/agents", tags=["agents"], responses=returns(AgentList), summary="Agents, those with the latest requests first")
    async def agents() -> Response:
        return answer(AgentList(agents=tuple(await plane.agents())))

    @app.get(
        "/api/agent/{agent_id:path}",
        tags=["agents"],
        responses=returns(AgentDetail, 404),
        summary="One agent: what it uses, what it costs, its latest sessions",
    )
    async def agent(agent_id: AgentId) -> Response:
        found = await plane.agent(agent_id)
        if found is None:
            raise ControlNotFound(f"there is no agent '{agent_id[:200]}'")
        return answer(found)
