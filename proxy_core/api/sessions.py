"""Routes about sessions: lists by filter, one with its turns, and one as a file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import FastAPI, Path, Query
from starlette.responses import Response, StreamingResponse

from proxy_core.api.answers import answer, returns, to_json
from proxy_core.api.shapes import SessionTags, TagUse
from proxy_core.control.plane import ControlNotFound, ControlPlane
from proxy_core.control.session_export import MEDIA_TYPES, ExportFormat, export, file_name
from proxy_core.control.session_infos import Count, SessionDetail, SessionPage

MAX_ID_CHARS = 600

SessionId = Annotated[str, Path(max_length=MAX_ID_CHARS, description="The session's id.")]
Expression = Annotated[
    str, Query(max_length=2_000, description="Only these, in the filter language of sessions: `is:active cost>1 tool:bash`.")
]
Tags = Annotated[
    str,
    Query(max_length=4_000, description="Only those with all of these tags: `team:legal,debug`, each `name` or `name:value`."),
]
Agent = Annotated[str, Query(max_length=MAX_ID_CHARS, description="Only those of this agent.")]
Status = Annotated[
    Literal["", "active", "inactive", "completed", "ACTIVE", "INACTIVE", "COMPLETED"], Query(description="Only these.")
]
Limit = Annotated[int, Query(ge=1, le=200, description="At most so many.")]
Cursor = Annotated[
    str | None,
    Query(
        pattern="^[0-9]{1,18}[.][0-9]{1,18}$",
        description="The `next` of the page before; without it those with the latest requests come first.",
    ),
]
After = Annotated[int | None, Query(ge=0, description="Turns after this number, the oldest first.")]
Before = Annotated[int | None, Query(ge=1, description="Turns before this number, the latest of them.")]
Turns = Annotated[int, Query(ge=1, le=1_000, description="At most so many turns.")]


def add_session_routes(app: FastAPI, plane: ControlPlane) -> None:
    @app.get(
        "/api/sessions",
        tags=["sessions"],
        responses=returns(SessionPage, 422),
        summary="Sessions, those with the latest requests first",
    )
    async def sessions(
        filter: Expression = "",  # noqa: A002 - its name outside
        tags: Tags = "",
        agent: Agent = "",
        status: Status = "",
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        """A page may be shorter than `limit` although there is a `next`: a filter looks at 2,000 sessions at once."""
        return answer(
            await plane.sessions(
                filter=filter, tags=tags.split(","), agent=agent, status=status.lower(), limit=limit, cursor=cursor
            )
        )

    @app.get("/api/sessions/tags", tags=["sessions"], responses=returns(SessionTags), summary="Tags in use, with their values")
    async def used_tags() -> Response:
        used = await plane.session_tags()
        return answer(
            SessionTags(
                tags=tuple(
                    TagUse(
                        name=name,
                        values=tuple(Count(value, values[value]) for value in sorted(values, key=lambda one: -values[one])[:100]),
                    )
                    for name, values in sorted(used.items())
                )
            )
        )

    @app.get(
        "/api/session/{session_id:path}/export",
        tags=["sessions"],
        responses=_files(),
        summary="One session as a file",
    )
    async def exported(session_id: SessionId, format: ExportFormat = "markdown") -> Response:  # noqa: A002 - its name outside
        """Every turn, with texts of up to a million characters. Markdown is as a person reads it; JSON lines have one transaction
        each, with its new messages in canonical form. Hostile text can break out of neither."""
        found = await plane.session(session_id, limit=1)
        if found is None:
            return await _told(plane, f"{session_id}/export")  # ids may have slashes, and end like this path

        async def written() -> AsyncIterator[bytes]:
            async for piece in export(found.info, plane.story(session_id), format):
                yield piece.encode("utf-8", "replace")

        headers = {"content-disposition": f'attachment; filename="{file_name(session_id, format)}"'}
        return StreamingResponse(written(), media_type=MEDIA_TYPES[format], headers=headers)

    @app.get(
        "/api/session/{session_id:path}",
        tags=["sessions"],
        responses=returns(SessionDetail, 404, 422),
        summary="One session, turn by turn",
    )
    async def session(session_id: SessionId, after: After = None, before: Before = None, limit: Turns = 200) -> Response:
        """The latest turns, or those after or before one: a reader that follows asks for those after the last but one that it
        has, since a turn changes while it runs, and its calls until their results have come."""
        return await _told(plane, session_id, after=after, before=before, limit=limit)


async def _told(
    plane: ControlPlane, session_id: str, *, after: int | None = None, before: int | None = None, limit: int = 200
) -> Response:
    found = await plane.session(session_id, after=after, before=before, limit=limit)
    if found is None:
        raise ControlNotFound(f"there is no session '{session_id[:200].removesuffix('/export')}'")
    return Response(await asyncio.to_thread(to_json, found), media_type="application/json")


def _files() -> dict[int | str, dict[str, object]]:
    described = returns(SessionPage, 404, 422)
    kinds = {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind in MEDIA_TYPES.values()}
    return {**described, 200: {"description": "The file.", "content": kinds}}
