"""Routes about policies: what they are set to and how they fare, and changes while traffic runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path
from starlette.responses import Response

from proxy_core.api.answers import answer, returns
from proxy_core.api.operator import Operator
from proxy_core.api.shapes import PolicyChange, PolicyList
from proxy_core.control.plane import ControlInvalid, ControlNotFound, ControlPlane, PolicyInfo

PolicyName = Annotated[str, Path(max_length=200, description="The policy's name in its chain.")]


def add_policy_routes(app: FastAPI, plane: ControlPlane) -> None:
    @app.get("/api/policies", tags=["policies"], responses=returns(PolicyList), summary="Every policy, in the order of its chain")
    async def policies() -> Response:
        return answer(PolicyList(policies=plane.policies()))

    @app.get("/api/policies/{name}", tags=["policies"], responses=returns(PolicyInfo, 404), summary="One policy")
    async def policy(name: PolicyName) -> Response:
        return answer(_named(plane, name))

    @app.patch(
        "/api/policies/{name}",
        tags=["policies"],
        responses=returns(PolicyInfo, 404, 422),
        summary="Change its mode or parameters",
    )
    async def change(name: PolicyName, given: PolicyChange, who: Operator) -> Response:
        """Checked as a whole, recorded, then in force for every later request; requests that run keep what they began with."""
        _named(plane, name)
        if given.mode is None and given.params is None:
            raise ControlInvalid("mode", "give a mode, params, or both")
        return answer(await plane.set_policy(name, mode=given.mode, params=given.params, who=who))


def _named(plane: ControlPlane, name: str) -> PolicyInfo:
    for one in plane.policies():
        if one.name == name:
            return one
    raise ControlNotFound(f"there is no policy '{name[:200]}'")
