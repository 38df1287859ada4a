"""Routes about routing: the rules in force and changes of them, and why a request would go where it goes."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Query
from starlette.responses import Response

from proxy_core.api.answers import answer, returns
from proxy_core.api.operator import Operator
from proxy_core.api.shapes import RouteQuestion, RoutingChange, UpstreamChange, WhatIfQuestion
from proxy_core.control.plane import ControlInvalid, ControlPlane
from proxy_core.control.routing_infos import RoutingInfo, WhatIf
from proxy_core.routing.explaining import USUAL_PATH, Explanation

Model = Annotated[str, Query(max_length=200, description="The model that would be asked for.")]
Prompt = Annotated[str, Query(max_length=100_000, description="What the user would say.")]
ApiPath = Annotated[str, Query(max_length=1_000, description="The path that the request would have.")]
UpstreamName = Annotated[str, Path(max_length=200, description="The upstream's name in the configuration.")]
Tags = Annotated[str, Query(max_length=4_000, description="Tags as in `x-luthien-tags`: `team:legal,debug`.")]


def add_routing_routes(app: FastAPI, plane: ControlPlane) -> None:
    @app.get(
        "/api/routing",
        tags=["routing"],
        responses=returns(RoutingInfo),
        summary="The rules in force, the latest decisions, and how each upstream fares",
    )
    async def routing() -> Response:
        return answer(plane.routing())

    @app.patch(
        "/api/routing",
        tags=["routing"],
        responses=returns(RoutingInfo, 422),
        summary="Change thresholds, or keep everything local",
    )
    async def change(given: RoutingChange, who: Operator) -> Response:
        """Checked as a whole, recorded, then in force for every later request. A threshold lies over the
        configuration's until that says something else of it; keeping everything local holds until it is taken back."""
        if not given.params and given.override is None:
            raise ControlInvalid("params", "give params, an override, or both")
        local = None if given.override is None else given.override == "local"
        return answer(await plane.set_routing(given.params or {}, local=local, who=who))

    @app.patch(
        "/api/upstreams/{name}",
        tags=["routing"],
        responses=returns(RoutingInfo, 404, 422),
        summary="Drain or freeze an upstream, or take it back",
    )
    async def upstream(name: UpstreamName, given: UpstreamChange, who: Operator) -> Response:
        """`drained` takes nothing that another upstream can take, `frozen` nothing at all; what runs there goes on. Recorded,
        then in force until it is set to `active`, over restarts too."""
        return answer(await plane.set_upstream(name, given.state, who=who))

    @app.post(
        "/api/routing/what-if",
        tags=["routing"],
        responses=returns(WhatIf, 422),
        summary="What changed rules would have made of recorded traffic",
    )
    async def what_if(given: WhatIfQuestion) -> Response:
        """Nothing changes. Each recorded request is decided by the rules in force and by the changed ones; both decisions are
        made now, over the present upstreams."""
        return answer(await plane.what_if(given.params, limit=given.limit))

    @app.get(
        "/api/routing/explain",
        tags=["routing"],
        responses=returns(Explanation, 422),
        summary="Where a request would go, and what every rule says of it",
    )
    async def explain(model: Model = "", prompt: Prompt = "", path: ApiPath = USUAL_PATH, tags: Tags = "") -> Response:
        """Nothing is sent, and policies are not asked: they may change a request before the rules see it."""
        return answer(plane.explain_route(path=path, model=model, prompt=prompt, tags=tags))

    @app.post(
        "/api/routing/explain",
        tags=["routing"],
        responses=returns(Explanation, 422),
        summary="Where a whole request would go, and what every rule says of it",
    )
    async def explain_whole(given: RouteQuestion) -> Response:
        """Nothing is sent or recorded, and policies are not asked."""
        body = given.body.encode("utf-8", "surrogatepass") if given.body is not None else None
        asked = plane.explain_route(path=given.path, model=given.model, prompt=given.prompt, tags=given.tags, body=body)
        return answer(asked)
