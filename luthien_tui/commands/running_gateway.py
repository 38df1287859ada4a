"""The gateway that runs here, asked over its control API: one request, two seconds to reach it, never through a proxy.

It is this data folder's gateway where it takes the folder's token; another one is left alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from typing import Any, TypeVar

import msgspec

from proxy_core.api.address import known_address
from proxy_core.api.token import known_token
from proxy_core.control.plane import ControlInvalid
from proxy_core.errors import LuthienError
from proxy_core.logs import escaped
from proxy_core.settings import Settings
from proxy_core.settings_sources import data_dir_path

T = TypeVar("T")

CONNECT_S = 2.0
ANSWER_S = 60.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


def ask_running(settings: Settings, path: str, question: Mapping[str, Any], kind: type[T]) -> T | None:
    """The answer of the gateway that runs over this data folder; None where none does.

    Raises ControlInvalid, which names the field, and LuthienError where it answers with another error.
    """
    data_dir, control = data_dir_path(settings), settings.control
    host, port = known_address(data_dir) or (control.host, control.port if control.enabled else 0)
    token = known_token(data_dir) if port else None
    if token is None:
        return None
    answered = _answer(_ANY.get(host, host), port, path, json.dumps(question), token)
    if answered is None:
        return None
    status, body = answered
    where = f"the gateway with its control port at {host}:{port}"
    try:
        if status == 200:
            found = msgspec.json.decode(body, type=kind)
            print(f"asked {escaped(where)}", file=sys.stderr)
            return found
        if status == 401:
            print(f"{escaped(where)} is another folder's and was not asked", file=sys.stderr)
            return None
        told = json.loads(body)
        fault = next(iter(told.get("detail") or ()), None)
        if status == 422 and fault is not None:
            raise ControlInvalid(".".join(str(part) for part in fault["loc"]), str(fault["msg"]))
        message = str(told["error"]["message"])
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.DecodeError) as strange:
        raise LuthienError(f"{where} gives an answer that is none of luthien's (status {status})") from strange
    raise LuthienError(f"{where} refuses: {message}")


def _answer(host: str, port: int, path: str, question: str, token: str) -> tuple[int, bytes] | None:
    """Status and body; None where nobody listens."""
    connection = HTTPConnection(host, port, timeout=CONNECT_S)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    try:
        connection.connect()
        connection.sock.settimeout(ANSWER_S)
        connection.request("POST", path, question.encode(), headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()
