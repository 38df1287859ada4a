"""Routes about routing: why a request would go where it goes."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query
from starlette.responses import Response

from proxy_core.api.answers import answer, returns
from proxy_core.control.plane import ControlPlane
from proxy_core.routing.explaining import USUAL_PATH, Explanation

Model = Annotated[str, Query(max_length=200, description="The model that would be asked for.")]
Prompt = Annotated[str, Query(max_length=100_000, description="What the user would say.")]
ApiPath = Annotated[str, Query(max_length=1_000, description="The path that the request would have.")]
Tags = Annotated[str, Query(max_length=4_000, description="Tags as in `x-luthien-tags`: `team:legal,debug`.")]


def add_routing_routes(app: FastAPI, plane: ControlPlane) -> None:
    @app.get(
        "/api/routing/explain",
        tags=["routing"],
        responses=returns(Explanation, 422),
        summary="Where a request would go, and what every rule says of it",
    )
    async def explain(model: Model = "", prompt: Prompt = "", path: ApiPath = USUAL_PATH, tags: Tags = "") -> Response:
        """Nothing is sent, and policies are not asked: they may change a request before the rules see it."""
        return answer(plane.explain_route(path=path, model=model, prompt=prompt, tags=tags))
