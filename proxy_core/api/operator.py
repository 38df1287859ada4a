"""Who asks: a name that the caller gives itself, for the record."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header

HEADER = "x-luthien-operator"
MAX_NAME = 64


def operator_name(given: str | None) -> str:
    """A name that is safe in records, logs and on screens; `api` where none was given."""
    given = given or ""
    try:
        given = given.encode("latin-1").decode("utf-8")  # a header's bytes are read as Latin-1
    except UnicodeError:
        pass
    name = "".join(one for one in given if one.isprintable()).strip()[:MAX_NAME].strip()
    return name or "api"


def _operator(
    given: Annotated[
        str | None, Header(alias=HEADER, max_length=1_000, description="Your name, for the record; `api` where none is given.")
    ] = None,
) -> str:
    return operator_name(given)


Operator = Annotated[str, Depends(_operator)]
