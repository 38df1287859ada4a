"""How the control API answers: values as JSON, errors as `{"error": {"code", "message"}}`, and both in the OpenAPI document."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from proxy_core.api.shapes import ErrorAnswer, ErrorBody
from proxy_core.control.filters import FilterError
from proxy_core.control.plane import ControlConflict, ControlInvalid, ControlNotFound
from proxy_core.errors import LuthienError

log = logging.getLogger(__name__)

_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}
_MEANINGS = {
    401: "The token is missing or wrong.",
    404: "There is nothing of that name.",
    409: "Somebody else was quicker, or what was shown has changed; nothing was done.",
    422: "A value cannot be taken; `detail` names it.",
}
_encoder = msgspec.json.Encoder(enc_hook=str)


def to_json(value: Any) -> bytes:
    """The JSON of a value. Text that is no Unicode (half a surrogate pair) goes as an escape."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value, enc_hook=str)).encode("ascii")


def answer(value: Any, status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


def failure(status: int, code: str, message: str, detail: Sequence[tuple[Sequence[str | int], str]] = ()) -> Response:
    faults: list[dict[str, Any]] = [{"loc": list(place), "msg": text} for place, text in detail]
    return answer(ErrorAnswer(error=ErrorBody(code=code, message=message), detail=faults), status)


def returns(kind: type[Struct], *failures: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that gives a `kind`, for the OpenAPI document."""
    described: dict[int | str, dict[str, Any]] = {200: _described(" ".join((kind.__doc__ or "").split()), kind)}
    for status in (401, *failures):
        described[status] = _described(_MEANINGS[status], ErrorAnswer)
    return described


def _described(text: str, kind: type[Struct]) -> dict[str, Any]:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}},
    }


def answer_errors(app: FastAPI) -> None:
    """Give every error its JSON form."""

    @app.exception_handler(ControlNotFound)
    async def not_found(request: Request, error: Exception) -> Response:
        return failure(404, "not_found", str(error))

    @app.exception_handler(ControlConflict)
    async def conflict(request: Request, error: Exception) -> Response:
        return failure(409, "conflict", str(error))

    @app.exception_handler(ControlInvalid)
    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, ControlInvalid)  # noqa: S101 - registered for it
        return failure(422, "invalid", str(error), [(error.field.split("."), error.message)])

    @app.exception_handler(FilterError)
    async def wrong_filter(request: Request, error: Exception) -> Response:
        return failure(422, "invalid", f"filter: {error}", [(["filter"], str(error))])

    @app.exception_handler(RequestValidationError)
    async def unfit(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
        faults = [(_place(one["loc"]), str(one["msg"])) for one in error.errors()]
        told = "; ".join(f"{'.'.join(str(part) for part in place) or 'body'}: {text}" for place, text in faults)
        return failure(422, "invalid", told, faults)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
        response = failure(error.status_code, _CODES.get(error.status_code, "error"), str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(LuthienError)
    async def known_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, LuthienError)  # noqa: S101 - registered for it
        return failure(error.face.status, error.face.openai_code, str(error))

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        log.error("the control API failed on %s", request.scope["path"], exc_info=error)
        return failure(500, "internal_error", "luthien failed on this request; its log says more")


def _place(parts: Sequence[str | int]) -> list[str | int]:
    """Where a value stands, without FastAPI's word for the part of the request."""
    return list(parts[1:]) if parts and parts[0] in ("body", "query", "path", "header") else list(parts)
