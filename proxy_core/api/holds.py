"""Routes about holds: what waits for a person, and the answers to it."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import FastAPI, Path, Query
from starlette.responses import Response

from proxy_core.api.answers import answer, returns
from proxy_core.api.operator import Operator
from proxy_core.api.shapes import Decision, Extension, HoldList
from proxy_core.control.plane import ControlInvalid, ControlPlane, HoldInfo

HoldId = Annotated[str, Path(max_length=64, description="The hold's id.")]
Decided = Annotated[bool, Query(description="Also those that were decided lately.")]


def add_hold_routes(app: FastAPI, plane: ControlPlane) -> None:
    @app.get("/api/holds", tags=["holds"], responses=returns(HoldList), summary="What waits for a person, oldest first")
    async def holds(decided: Decided = False) -> Response:
        return answer(HoldList(holds=plane.holds(decided=decided)))

    @app.post("/api/holds/{hold_id}", tags=["holds"], responses=returns(HoldInfo, 404, 409, 422), summary="Approve, edit or deny")
    async def decide(hold_id: HoldId, given: Decision, who: Operator) -> Response:
        """Decided at most once, and only as it was shown: 409 tells that somebody was quicker or that it has changed."""
        edited = given.edited if given.edited is None or isinstance(given.edited, str) else json.dumps(given.edited)
        if given.decision == "edit" and edited is None:
            raise ControlInvalid("edited", "say what takes the place of the content")
        if given.decision != "edit" and edited is not None:
            raise ControlInvalid("edited", f"'{given.decision}' takes none; use 'edit'")
        found = await plane.decide_hold(
            hold_id, decision=given.decision, shown=given.shown, edited=edited, reason=given.reason, who=who
        )
        return answer(found)

    @app.post(
        "/api/holds/{hold_id}/extend", tags=["holds"], responses=returns(HoldInfo, 404, 409, 422), summary="Give it more time"
    )
    async def extend(hold_id: HoldId, given: Extension, who: Operator) -> Response:
        return answer(await plane.extend_hold(hold_id, given.seconds, who=who))
