"""The route about what operators and configuration files have changed."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query
from starlette.responses import Response

from proxy_core.api.answers import answer, returns
from proxy_core.api.shapes import ChangeList
from proxy_core.control.plane import ControlPlane

MOST = 10**15
"""More than any number that the journal gives."""

Limit = Annotated[int, Query(ge=1, le=1_000, description="At most so many.")]
Cursor = Annotated[
    int | None, Query(ge=1, le=MOST, description="The `next` of the page before; without it the newest come first.")
]


def add_change_routes(app: FastAPI, plane: ControlPlane) -> None:
    @app.get(
        "/api/changes",
        tags=["state"],
        responses=returns(ChangeList, 422),
        summary="What was set otherwise, by whom, from what to what; the newest first",
    )
    async def changes(limit: Limit = 100, cursor: Cursor = None) -> Response:
        found = await plane.changes(limit, cursor)
        return answer(ChangeList(changes=tuple(found), next=str(found[-1].sequence) if len(found) == limit else None))
